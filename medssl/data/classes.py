"""The classes of a data set: what the labels of a table and the values of a mask mean, and what a network learns of them.

Without named classes all is lesion against none. A name of "nothing there" (normal, healthy, none, ...) is never positive by itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medssl.data.manifest import ManifestRow
from medssl.data.masks import LESION
from medssl.errors import ConfigError, ManifestError

NOTHING = frozenset({"normal", "healthy", "none", "negative", "control", "0", "no", "false"})
UNKNOWN = -1


def labels_of(row: ManifestRow) -> tuple[str, ...]:
    """The classes in the label of a scan, which `;` separates."""
    return tuple(filter(None, (part.strip() for part in row.label.split(";"))))


def scan_label(row: ManifestRow, positive: Sequence[str] = ()) -> int:
    """1 for a scan with a lesion of the asked classes, 0 for one without, -1 where that is not known."""
    if row.label:
        return int(any(name in positive if positive else name.casefold() not in NOTHING for name in labels_of(row)))
    return {"1": 1, "0": 0}.get(row.has_lesion, UNKNOWN)


@dataclass(frozen=True)
class Classes:
    """Which classes there are, and which of them count as positive.

    Args:
        names: In the order of the network's channels; empty for lesion against none.
        positive: Those that count as positive; empty for every class but the usual names of "nothing there".
        multi_label: A scan may have several classes or none, instead of exactly one.
        mask_values: What masks hold where each class is, in the order of `names`; empty for 1, 2, 3, ...

    Raises:
        ConfigError: A name twice, a positive class without a name or none at all, or not one value of masks for each class.
    """

    names: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    multi_label: bool = False
    mask_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or any(not name or ";" in name for name in self.names):
            raise ConfigError(f"labels.classes needs names without ';', each once, got {list(self.names)}")
        strangers = set(self.positive) - set(self.names) if self.names else set()
        if strangers:
            raise ConfigError(f"labels.positive names {sorted(strangers)}, labels.classes has {list(self.names)}; name them in both")
        if self.names and not self.positives:
            raise ConfigError(f"none of labels.classes {list(self.names)} is positive; name those that are in labels.positive")
        if self.mask_values and (len(set(self.mask_values)) != len(self.names) or min(self.mask_values) < 1):
            raise ConfigError(f"labels.mask_values needs one value >= 1 for each of {list(self.names)}, got {list(self.mask_values)}")
        if self.multi_label and not self.names:
            raise ConfigError("labels.multi_label needs names in labels.classes")

    @property
    def positives(self) -> tuple[str, ...]:
        """The positive classes, spelled out where classes are named."""
        return self.positive or tuple(self.lesions)

    @property
    def lesions(self) -> list[str]:
        """The named classes but those of "nothing there"."""
        return [name for name in self.names if name.casefold() not in NOTHING]

    @property
    def values(self) -> tuple[int, ...]:
        """What masks hold where each class is; 1 for lesion against none."""
        return self.mask_values or tuple(range(1, max(len(self.names), 1) + 1))

    def target(self, row: ManifestRow) -> tuple[int, ...]:
        """What a classifier learns of a scan.

        Returns:
            One number: 1 lesion or 0 none, or the index of the one class; or for several labels a 0 or 1 for each class. -1: not known.

        Raises:
            ManifestError: `bad_label` for a class that has no name in the configuration, or several where there can be one.
        """
        if not self.names:
            return (scan_label(row, self.positive),)
        found = labels_of(row)
        if not found:
            return (UNKNOWN,) * (len(self.names) if self.multi_label else 1)
        if self.multi_label:
            found = tuple(name for name in found if name in self.names or name.casefold() not in NOTHING)
        strangers = [name for name in found if name not in self.names]
        if strangers:
            raise ManifestError("bad_label", f"class {strangers[0]!r} is not one of {list(self.names)}")
        if self.multi_label:
            return tuple(int(name in found) for name in self.names)
        if len(found) > 1:
            raise ManifestError("bad_label", f"scan {row.scan_id} has {len(found)} classes where one is learned; set labels.multi_label")
        return (self.names.index(found[0]),)

    def slice_target(self, row: ManifestRow, numbers: Sequence[int], *, told_apart: bool) -> tuple[int, ...]:
        """What a classifier learns of one slice of a scan whose mask is known.

        Args:
            row: The scan.
            numbers: Classes in the slice by their number, the first is 1.
            told_apart: Whether the mask tells classes apart; else the slices with lesion have the labels of the scan.
        """
        if not self.names:
            return (int(bool(numbers)),)
        if self.multi_label:
            by_scan = bool(numbers) and not told_apart
            return self.target(row) if by_scan else tuple(int(number in numbers) for number in range(1, len(self.names) + 1))
        nothing = [index for index, name in enumerate(self.names) if name.casefold() in NOTHING]
        found = [number - 1 for number in numbers] or nothing
        return (found[0] if len(found) == 1 else UNKNOWN,)

    def value_names(self, row: ManifestRow, values: Iterable[int]) -> dict[int, str]:
        """The class of each value of a scan's mask; a mask of lesion against none is of the scan's class, or of the only one there is.

        Args:
            row: The scan.
            values: Of its mask; empty for lesion against none, which holds 1 whether the file had 1 or 255.
        """
        said = [name for name in labels_of(row) if name in self.names]
        if len(said) != 1 and not self.mask_values:
            said = self.lesions
        found = tuple(values)
        if not found and len(said) == 1:
            return {1: said[0]}
        named = dict(zip(self.values, self.names, strict=False))
        if not found:
            held = [named[value] for value in LESION if value in named]
            return dict(zip((1,), held, strict=False))
        return {value: named[value] for value in found if value in named}


def is_of_others(row: ManifestRow, classes: Classes) -> bool:
    """Whether the lesions of a scan do not count, as none of its classes is positive; named classes tell so voxel by voxel instead."""
    return not classes.names and bool(row.label) and scan_label(row) > scan_label(row, classes.positive)


def check_known(classes: Classes, rows: Iterable[ManifestRow], *, needed: bool = False) -> None:
    """Whether every label has a name in the configuration.

    Args:
        classes: The named ones.
        rows: The scans.
        needed: Each scan has one of the named classes; else one may also have a name of "nothing there".

    Raises:
        ManifestError: `bad_label` with the classes that have none, and how many scans have them.
    """
    if not classes.names:
        return
    count = Counter(name for row in rows for name in labels_of(row))
    allowed = frozenset() if needed and not classes.multi_label else NOTHING
    unknown = {name: n for name, n in count.items() if name not in classes.names and name.casefold() not in allowed}
    if unknown:
        found = ", ".join(f"{name!r} ({n} scans)" for name, n in sorted(unknown.items()))
        raise ManifestError(
            "bad_label", f"labels.classes does not name {found}; it has {list(classes.names)}. Add it, or correct the table"
        )


def check_positive(classes: Classes, rows: Iterable[ManifestRow]) -> None:
    """Whether the positive classes occur, where no classes are named; a scan of a misspelt one would be learned as one without lesion.

    Args:
        classes: The positive ones.
        rows: Every scan of the store.

    Raises:
        ManifestError: `bad_label` with those that no scan has, and the labels that there are.
    """
    found = {name for row in rows for name in labels_of(row)}
    strangers = sorted(set(classes.positive) - found)
    if strangers and not classes.names:
        raise ManifestError(
            "bad_label", f"labels.positive names {strangers}, the labels of the store are {sorted(found)}; correct one of both"
        )
