"""Scans that are the same although their names say otherwise: (nearly) equal voxels under two patients, or on both sides of a split."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl.data.fingerprint import THRESHOLD, Bits, alike
from medssl.data.manifest import ManifestRow
from medssl.data.seals import read_sealed, seal
from medssl.errors import ManifestError, MedSSLError, UsageError
from medssl.files import write_whole
from medssl.patients import patient_key

EQUAL = "equal"
_NAMED = 5  # pairs in a message
_LONGEST_REASON = 300
_COLUMNS = ("first", "second", "first_split", "second_split", "kind", "correlation")


@dataclass(frozen=True)
class LeakPair:
    """Two scans of the same content.

    Args:
        first: scan_id of one.
        second: scan_id of the other.
        splits: Their splits, in the same order.
        same_patient: Whether the table gives them one patient.
        kind: `equal` voxels, `alike`, or `mirrored I` (or J, K).
        correlation: Of their content, 1 for equal voxels.
    """

    first: str
    second: str
    splits: tuple[str, str]
    same_patient: bool
    kind: str = EQUAL
    correlation: float = 1.0

    @property
    def is_crossing(self) -> bool:
        """Whether the scans lie in different splits."""
        return self.splits[0] != self.splits[1]

    def __str__(self) -> str:
        sign = "=" if self.kind == EQUAL else "~"
        return f"{self.first} ({self.splits[0] or 'no split'}) {sign} {self.second} ({self.splits[1] or 'no split'})"


@dataclass(frozen=True)
class Guard:
    """What the guard of `prepare` lets pass, and what it compares with beside the scans themselves.

    Args:
        reason: Why leakage is allowed; empty where it is not.
        seen: What a bundle has seen, see `medssl.data.seen`.
        keep_together: Patients of equal or nearly equal scans go into one split; without it such scans stop the run.

    Raises:
        UsageError: The reason is too long.
    """

    reason: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    keep_together: bool = False

    def __post_init__(self) -> None:
        plain = " ".join("".join(letter if letter.isprintable() else " " for letter in self.reason).split())
        if len(plain) > _LONGEST_REASON:
            raise UsageError(f"the reason to allow leakage has {len(plain)} letters, at most {_LONGEST_REASON} are printed in reports")
        object.__setattr__(self, "reason", plain)


@dataclass(frozen=True)
class Leakage:
    """What the guard found when a store was prepared; `leakage.json`.

    Args:
        pairs: Pairs of scans of the same content under two patients.
        crossing: Those of them whose scans lie in different splits.
        seen: Scans that a bundle had seen.
        reason: Why that was allowed, empty where it was not.
        kept_together: Whether somebody asked to draw the patients of such pairs into one split.
    """

    pairs: int = 0
    crossing: int = 0
    seen: int = 0
    reason: str = ""
    kept_together: bool = False

    @classmethod
    def read(cls, store: Path) -> "Leakage":
        """The record of a store.

        Raises:
            MedSSLError: It is absent or was changed.
        """
        fields = read_sealed(store / "leakage.json")
        if fields is None:
            raise MedSSLError(f"leakage.json of {store.name} is absent or was changed; run medssl prepare again")
        numbers = {name: fields[name] for name in ("pairs", "crossing", "seen", "reason")}
        return cls(**numbers, kept_together=fields.get("kept_together", False))

    def write(self, store: Path) -> None:
        """Write the record."""
        write_whole(store / "leakage.json", [seal({**asdict(self), "threshold": THRESHOLD})])

    def sentences(self) -> list[str]:
        """What a report says on top when leakage was allowed."""
        if not self.reason:
            return []
        found = f"{self.crossing} pairs of equal or nearly equal scans lie in different splits"
        found += f", {self.seen} scans had been seen by the model" if self.seen else ""
        return [f"Leakage was allowed when the store was prepared ({found}). The reason given: {self.reason}"]


def duplicates(rows: Iterable[ManifestRow]) -> list[LeakPair]:
    """Every scan whose voxels came before, paired with the first of its kind; rows without a hash are compared by their path."""
    groups: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[row.sha256 or row.image].append(row)
    return [pair(group[0], other) for group in groups.values() for other in group[1:]]


def check(rows: Iterable[ManifestRow]) -> list[LeakPair]:
    """The pairs that leak: equal voxels in two different splits."""
    groups: defaultdict[str, dict[str, ManifestRow]] = defaultdict(dict)
    for row in rows:
        if row.split:
            groups[row.sha256 or row.image].setdefault(row.split, row)
    return [pair(first, other) for first, *others in (list(group.values()) for group in groups.values()) for other in others]


def near_duplicates(rows: Sequence[ManifestRow], signs: Bits) -> list[LeakPair]:
    """The pairs of scans that are nearly equal, mirrored ones too; equal ones are not among them.

    Args:
        rows: The scans.
        signs: (N, 2, 4, 64) their fingerprints.
    """
    found: dict[tuple[int, int], LeakPair] = {}
    for one in alike(signs):
        first, second = sorted((one.first, one.second))
        if rows[first].sha256 != rows[second].sha256:
            kind = f"mirrored {one.mirrored}" if one.mirrored else "alike"
            found.setdefault((first, second), pair(rows[first], rows[second], kind, one.correlation))
    return list(found.values())


def pair(first: ManifestRow, second: ManifestRow, kind: str = EQUAL, correlation: float = 1.0) -> LeakPair:
    """Two rows as a pair."""
    same = patient_key(first.patient) == patient_key(second.patient)
    return LeakPair(first.scan_id, second.scan_id, (first.split, second.split), same, kind, round(correlation, 4))


def resplit(pairs: Iterable[LeakPair], rows: Iterable[ManifestRow]) -> list[LeakPair]:
    """The pairs with the splits that the rows have now, those across splits first."""
    split = {row.scan_id: row.split for row in rows}
    now = [replace(one, splits=(split[one.first], split[one.second])) for one in pairs]
    return sorted(now, key=lambda one: not one.is_crossing)


def refuse(pairs: Sequence[LeakPair], guard: Guard, table: Path) -> None:
    """Stop because of scans of the same content under different patients.

    Args:
        pairs: All of them, with their splits, those across splits first.
        guard: With a reason nothing stops; with `keep_together` only pairs across splits do, which a table has fixed.
        table: Where all pairs are written, for the message.

    Raises:
        ManifestError: `patient_leak`, with some of the pairs.
    """
    across = [one for one in pairs if one.is_crossing]
    stopping = across if guard.keep_together else pairs
    if guard.reason or not stopping:
        return
    named = "; ".join(str(one) for one in stopping[:_NAMED]) + ("; ..." if len(stopping) > _NAMED else "")
    fixed = f", {len(across)} of them in different splits that the table fixes" if across else ""
    one_split = "" if guard.keep_together else "draw such patients into one split with --keep-together, "
    raise ManifestError(
        "patient_leak",
        f"{len(stopping)} pairs of equal or nearly equal scans lie under different patients{fixed}: {named}. All are in {table.name}. "
        f"Give both scans of a pair the same patient{' and the same split' if across else ''}, {one_split}"
        "or say why they may stay with --allow-leakage REASON",
    )


def write_pairs(path: Path, pairs: Sequence[LeakPair]) -> None:
    """All pairs as a table; none where there is no pair."""
    if not pairs:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([one.first, one.second, *one.splits, one.kind, f"{one.correlation:.4f}"] for one in pairs)
    write_whole(path, [text.getvalue().encode()])
