"""Splits by patient: drawn once from a seed, balanced over classes and sites, never through a patient."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from medssl.data.manifest import ManifestRow
from medssl.errors import ConfigError
from medssl.patients import patient_key

FRACTIONS: Mapping[str, float] = MappingProxyType({"train": 0.6, "val": 0.2, "test": 0.2})

_LARGEST_SEED = 2**32 - 1  # of NumPy's older generators, which libraries seed too


def check_seed(seed: int) -> None:
    """Whether every generator takes a seed.

    Raises:
        ConfigError: It is negative or too large.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed must be a whole number from 0 to {_LARGEST_SEED}, got {seed}")


@dataclass(frozen=True)
class _Group:
    """Rows that must stay together: one patient, and whoever shares voxels, or nearly so, with them."""

    members: tuple[int, ...]
    kind: str  # classes that occur in it
    site: str
    split: str
    patients: int


def assign(
    rows: Sequence[ManifestRow],
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    together: Iterable[tuple[str, str]] = (),
) -> list[ManifestRow]:
    """Fill the split of every row that has none.

    Patients are drawn class by class, and site by site within a class; every split gets every class where there are patients enough.
    Rows that have a split keep it, and further rows of the same patient follow. The result depends on the rows and the seed, not on
    the order of the rows. Where patients are not known, the `patient` column holds the block that must stay together.

    Args:
        rows: The scans, in any order.
        fractions: Share of patients of each split; the first named is served first when patients are few.
        seed: Of the draw.
        together: Pairs of scan_ids whose patients must not be torn apart, such as near-duplicates.

    Raises:
        ConfigError: Fractions that are negative or do not sum to 1.
    """
    if not fractions or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ConfigError(f"split fractions must be >= 0 and sum to 1, got {dict(fractions)}")
    filled = list(rows)
    by_kind: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in _groups(rows, together):
        by_kind[group.kind].append(group)
    generator = np.random.default_rng(seed)
    owed = dict.fromkeys(fractions, 0.0)  # what rounding took from a split in one class is given back in the next
    for kind in sorted(by_kind):
        drawn = _draw(by_kind[kind], fractions, owed, generator)
        for name, share in fractions.items():
            owed[name] += sum((share - (split == name)) * group.patients for group, split in drawn)
        for group, split in drawn:
            for member in group.members:
                filled[member] = replace(rows[member], split=rows[member].split or split)
    return filled


def _draw(
    groups: Sequence[_Group], fractions: Mapping[str, float], owed: Mapping[str, float], generator: np.random.Generator
) -> list[tuple[_Group, str]]:
    """A split for each group of one class: groups of several patients first, then single ones, whose quota is exact.

    The largest groups go first, each to the split that lacks most; the last of them go to splits that would be empty.
    """
    drawn = [(group, group.split) for group in groups if group.split]
    open_groups = [group for group in groups if not group.split]
    shuffled = [open_groups[index] for index in generator.permutation(len(open_groups))]
    given = Counter[str]()
    for group, split in drawn:
        given[split] += group.patients
    count = sum(group.patients for group in groups)
    for index, group in enumerate(sorted((group for group in shuffled if group.patients > 1), key=lambda group: -group.patients)):
        empty = [name for name, share in fractions.items() if share > 0 and not given[name]]
        names = empty if 0 < len(open_groups) - index <= len(empty) else list(fractions)
        most = group.patients  # a debt of other classes counts up to one group, so that a class fixed by a table does not steer the next
        lacks = {name: fractions[name] * count - given[name] + min(max(owed[name], -most), most) for name in names}
        split = max(names, key=lambda name: round(lacks[name], 9))
        given[split] += group.patients
        drawn.append((group, split))
    return [*drawn, *_draw_singles([group for group in shuffled if group.patients == 1], drawn, given, fractions, owed)]


def _draw_singles(
    singles: Sequence[_Group],
    drawn: Sequence[tuple[_Group, str]],
    given: Mapping[str, int],
    fractions: Mapping[str, float],
    owed: Mapping[str, float],
) -> list[tuple[_Group, str]]:
    """A split for each patient, in their order within a site."""
    quota = _quota(len(singles), given, fractions, owed)
    there, size = Counter[tuple[str, str]](), Counter[str]()
    for group, split in drawn:
        there[group.site, split] += group.patients
    for group in [*singles, *(group for group, _ in drawn)]:
        size[group.site] += group.patients
    found = []
    for group in sorted(singles, key=lambda group: group.site):
        lacks = {name: fractions[name] * size[group.site] - there[group.site, name] for name, left in quota.items() if left > 0}
        split = max(lacks, key=lambda name: (round(lacks[name], 9), quota[name]))
        quota[split] -= 1
        there[group.site, split] += 1
        found.append((group, split))
    return found


def _quota(count: int, given: Mapping[str, int], fractions: Mapping[str, float], owed: Mapping[str, float]) -> dict[str, int]:
    """How many of `count` new groups each split gets: largest remainders, then one for each split that would be empty."""
    total = count + sum(given.values())
    wanted = {name: max(0.0, share * total - given.get(name, 0)) for name, share in fractions.items()}
    scale = count / (sum(wanted.values()) or 1.0)
    quota = {name: int(value * scale + 1e-9) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: round(quota[name] - wanted[name] * scale - owed[name], 9))
    for name in by_remainder[: count - sum(quota.values())]:
        quota[name] += 1
    for name, share in fractions.items():
        richest = max(quota, key=lambda other: quota[other])
        if share > 0 and quota[name] + given.get(name, 0) == 0 and quota[richest] > 1:
            quota[richest] -= 1
            quota[name] += 1
    return quota


def _groups(rows: Sequence[ManifestRow], together: Iterable[tuple[str, str]]) -> list[_Group]:
    """The groups, ordered by their patients' names."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, root in enumerate(blocks(rows, together)):
        members[root].append(index)
    return [_group(rows, tuple(members[root])) for root in sorted(members)]


def _group(rows: Sequence[ManifestRow], members: tuple[int, ...]) -> _Group:
    kinds = sorted({rows[member].label or rows[member].has_lesion for member in members} - {""})
    sites = sorted({rows[member].site for member in members} - {""})
    splits = [rows[member].split for member in members if rows[member].split]
    patients = {patient_key(rows[member].patient or rows[member].scan_id) for member in members}
    return _Group(members, "+".join(kinds), "+".join(sites), splits[0] if splits else "", len(patients))


def blocks(rows: Sequence[ManifestRow], together: Iterable[tuple[str, str]]) -> list[str]:
    """The name of each row's block: patients joined by equal voxels, a file or a pair (union-find; named by the least patient)."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    def join(first: str, second: str) -> None:
        low, high = sorted((find(first), find(second)))
        parent[high] = low

    patients = {row.scan_id: patient_key(row.patient or row.scan_id) for row in rows}
    owner: dict[str, str] = {}
    for row in rows:
        for token in filter(None, (row.sha256, *row.sources)):
            join(patients[row.scan_id], owner.setdefault(token, patients[row.scan_id]))
    for one, other in together:
        join(patients[one], patients[other])
    return [find(patients[row.scan_id]) for row in rows]
