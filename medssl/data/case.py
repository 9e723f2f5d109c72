"""A scan as a run sees it: what is known of it, and where its arrays are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medssl.data.classes import UNKNOWN, Classes, check_known, is_of_others, scan_label
from medssl.data.entry import Bits, Stored
from medssl.data.manifest import ManifestRow
from medssl.data.store import Store
from medssl.data.window import Window
from medssl.errors import ManifestError

Target = tuple[int, ...]
Box = tuple[tuple[int, int], ...]

_BINARY = Classes()
_LOOKED_AT = 64  # voxels along each axis that tell the body from the air
_NOISE = 0.005  # share of a plane


class Arrays(Protocol):
    """Where scans are: a store."""

    def image(self, row: ManifestRow) -> Stored:
        """The stored (C, I, J, K) array of a scan."""

    def mask(self, row: ManifestRow) -> Bits | None:
        """The mask of a scan, None where it has none."""


@dataclass(frozen=True, eq=False)
class Case:
    """One scan: what is known of it, and where its arrays are.

    Args:
        row: The scan.
        arrays: Where it is.
        shape: (C, I, J, K) of the image.
        label: 1 positive, 0 negative, -1 not known.
        has_mask: Whether it is known where lesion is, voxel by voxel.
        lesion_slices: Indices along K with lesion of positive classes.
        levels: Of each channel: values at or below it are background, outside the body or defaced.
        present: Of each channel: whether the scan has this sequence.
        classes: Which classes there are.
        value_slices: Indices along K of each value of a mask that tells classes apart; empty for lesion against none.
        marked_slices: Indices along K with anything of the mask, whether positive or not; None for `lesion_slices`.
    """

    row: ManifestRow
    arrays: Arrays
    shape: tuple[int, int, int, int]
    label: int
    has_mask: bool
    lesion_slices: NDArray[np.intp]
    levels: tuple[float, ...] = ()
    present: tuple[bool, ...] = ()
    classes: Classes = _BINARY
    value_slices: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    marked_slices: tuple[int, ...] | None = None

    @property
    def target(self) -> Target:
        """What a classifier learns of the scan, see `Classes.target`."""
        return self.classes.target(self.row) if self.classes.names else (self.label,)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The number of the class (the first is 1) of each value of the mask; where no classes are named, 1 for all that is positive."""
        if not self.classes.names:
            return {} if is_of_others(self.row, self.classes) else dict.fromkeys(self.value_slices or (1,), 1)
        named = self.classes.value_names(self.row, self.value_slices)
        return {value: self.classes.names.index(name) + 1 for value, name in named.items()}

    @property
    def positive_values(self) -> tuple[int, ...]:
        """The values of the mask whose classes count as positive."""
        names = self.classes.names
        return tuple(value for value, number in self.numbers.items() if not names or names[number - 1] in self.classes.positives)

    @property
    def image(self) -> Stored:
        """The stored image, of which only what is used is read."""
        return self.arrays.image(self.row)

    @property
    def mask(self) -> Bits | None:
        """The mask, to be read in parts; None where it is not known."""
        return self.arrays.mask(self.row) if self.has_mask else None

    @property
    def lesion(self) -> NDArray[np.uint8] | None:
        """The whole (1, I, J, K) mask of positive classes as 0 and 1, None where it is not known."""
        mask = self.mask
        return None if mask is None else mask.only(mask.everywhere, self.positive_values)

    def class_mask(self, parts: Window | None = None) -> NDArray[np.uint8] | None:
        """The numbers of classes (1, ...) at four slices or everywhere: the first class is 1; None where they are not known."""
        mask = self.mask
        if mask is None:
            return None
        parts = mask.everywhere if parts is None else parts
        if not self.classes.names:
            return mask.only(parts, tuple(self.numbers))
        found = [np.uint8(number) * mask.only(parts, (value,)) for value, number in self.numbers.items()]
        return np.asarray(np.max(found, axis=0) if found else mask[parts] * 0, dtype=np.uint8)

    def part_target(self, numbers: Sequence[int]) -> Target:
        """What a classifier learns of a part of a scan whose lesions are known, from the numbers of the classes in it; 0 says nothing."""
        held = [number for number in numbers if number]
        return self.classes.slice_target(self.row, held, told_apart=bool(self.value_slices))

    def slice_target(self, k: int) -> Target:
        """What a classifier learns of slice `k`: its own answer where that is known, else that of the scan, as for an image."""
        if not self.known or (self.shape[3] == 1 and UNKNOWN not in self.target):
            return self.target
        return self.part_target(sorted({number for value, number in self.numbers.items() if k in self.slices_of(value)}))

    def slices_of(self, value: int) -> Sequence[int]:
        """Indices along K with a value of the mask."""
        if self.value_slices:
            return self.value_slices[value]
        return self.lesion_slices.tolist() if self.marked_slices is None else self.marked_slices

    @cached_property
    def box(self) -> Box:
        """First voxel and end, along I, J, K, of what is above `levels` in any channel; all of the scan where no level is known.

        Every n-th voxel is looked at, 64 or more along an axis, once for each scan; a plane with less than 0.5 % above is background, so
        that noise in air does not count.
        """
        if not self.levels:
            return tuple((0, length) for length in self.shape[1:])
        steps = [max(1, length // _LOOKED_AT) for length in self.shape[1:]]
        sample = self.image[(slice(None), *(slice(None, None, step) for step in steps))]
        body = np.any(sample > np.array(self.levels, np.float32)[:, None, None, None], axis=0, keepdims=True)[0]
        return tuple(_reach(body, axis, steps[axis], self.shape[1 + axis]) for axis in range(3))

    @property
    def known(self) -> bool:
        """Whether it is known where lesion is: a mask, or a scan that is known to have none."""
        return self.has_mask or scan_label(self.row) == 0


def _reach(body: NDArray[np.bool_], axis: int, step: int, length: int) -> tuple[int, int]:
    """First voxel and end of a body along one axis of a scan, of which every `step`-th voxel was looked at."""
    share = body.mean(axis=tuple(other for other in range(3) if other != axis))
    found = np.flatnonzero(share > _NOISE)
    return (max(0, int(found[0]) * step - step + 1), min(length, int(found[-1]) * step + step)) if len(found) else (0, length)


def load_cases(
    store: Store, rows: Sequence[ManifestRow], positive: Sequence[str] = (), *, masks: bool = True, classes: Classes | None = None
) -> list[Case]:
    """What is known of scans; their arrays stay in the store.

    Args:
        store: Where they are.
        rows: Which ones.
        positive: Class names that count as positive; when empty, every class but the usual names of "nothing there".
        masks: Whether masks may be used; without them no crop knows where lesion is.
        classes: Named classes, instead of `positive`.

    Raises:
        ManifestError: `no_rows` when there is none, `bad_label` for classes that are not named.
        MedSSLError: An entry is damaged and cannot be made again.
    """
    if not rows:
        raise ManifestError("no_rows", "no scan to read for this split; look at the split column of the store's manifest.csv")
    classes = Classes(positive=tuple(positive)) if classes is None else classes
    check_known(classes, rows)
    return [_case(store, row, classes, masks=masks) for row in rows]


def _case(store: Store, row: ManifestRow, classes: Classes, *, masks: bool) -> Case:
    entry = store.entry(row)
    has_mask = masks and entry.lesion is not None
    values = dict(zip(entry.values, entry.value_slices, strict=True)) if has_mask else {}
    label = scan_label(row, classes.positives)
    marked = entry.lesion_slices if has_mask else ()
    slices = np.array(() if is_of_others(row, classes) else marked, dtype=np.intp)
    case = Case(row, store, entry.shape, label, has_mask, slices, entry.levels, entry.present, classes, values, marked)
    if not has_mask or not classes.names:
        return case
    found = sorted({k for value in case.positive_values for k in case.slices_of(value)})
    return replace(case, lesion_slices=np.array(found, dtype=np.intp), label=label if row.label else int(bool(found)))
