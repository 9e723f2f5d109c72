"""Scans that are the same although their names say otherwise: equal voxels on both sides of a split."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from medssl.data.manifest import ManifestRow, patient_key


@dataclass(frozen=True)
class LeakPair:
    """Two scans with equal voxels.

    Args:
        first: scan_id of one.
        second: scan_id of the other.
        splits: Their splits, in the same order.
        same_patient: Whether the table gives them one patient.
    """

    first: str
    second: str
    splits: tuple[str, str]
    same_patient: bool

    def __str__(self) -> str:
        return f"{self.first} ({self.splits[0] or 'no split'}) = {self.second} ({self.splits[1] or 'no split'})"


def duplicates(rows: Iterable[ManifestRow]) -> list[LeakPair]:
    """Every scan whose voxels came before, paired with the first of its kind; rows without a hash are compared by their path."""
    groups: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[row.sha256 or row.image].append(row)
    return [_pair(group[0], other) for group in groups.values() for other in group[1:]]


def check(rows: Iterable[ManifestRow]) -> list[LeakPair]:
    """The pairs that leak: equal voxels in two different splits."""
    groups: defaultdict[str, dict[str, ManifestRow]] = defaultdict(dict)
    for row in rows:
        if row.split:
            groups[row.sha256 or row.image].setdefault(row.split, row)
    return [_pair(first, other) for first, *others in (list(group.values()) for group in groups.values()) for other in others]


def _pair(first: ManifestRow, second: ManifestRow) -> LeakPair:
    same = patient_key(first.patient) == patient_key(second.patient)
    return LeakPair(first.scan_id, second.scan_id, (first.split, second.split), same)
