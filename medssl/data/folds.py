"""Folds of a cross-validation: every patient is held out once, with whoever shares scans with them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from medssl.data.leakage import near_duplicates
from medssl.data.manifest import ManifestRow
from medssl.data.splits import assign, blocks
from medssl.data.store import Store
from medssl.errors import ConfigError


def nearly_equal(store: Store, rows: Sequence[ManifestRow]) -> tuple[tuple[str, str], ...]:
    """The scan_ids of scans whose patients must not be torn apart, for one is nearly the other."""
    return tuple((one.first, one.second) for one in near_duplicates(rows, store.signs(rows)))


def fold_numbers(
    rows: Sequence[ManifestRow], *, together: Iterable[tuple[str, str]], count: int, by: Literal["patient", "site"], seed: int
) -> list[int]:
    """The fold of each scan, from 0 on.

    By patient, folds are balanced over classes (or over having a lesion, where there are none) and sites, and patients of equal or nearly
    equal scans share one. By site, each site is a fold (Kohavi, 1995, with sites as folds: "leave one site out"); sites that share a
    patient, or an equal or nearly equal scan, are one.

    Args:
        rows: The scans.
        together: Pairs that `nearly_equal` gives.
        count: Folds of patients; by site there are as many as sites.
        by: What is held out together.
        seed: Of the draw of patients.

    Raises:
        ConfigError: Too few patients or sites for that.
    """
    folds = _sites(rows, together) if by == "site" else _patients(rows, together, count, seed)
    names = sorted(set(folds))
    if len(names) < (2 if by == "site" else count):
        raise ConfigError(f"{len(names)} folds by {by} can be made of these scans; ask for fewer, or for folds by another thing")
    return [names.index(name) for name in folds]


def _patients(rows: Sequence[ManifestRow], together: Iterable[tuple[str, str]], count: int, seed: int) -> list[str]:
    shares = {f"{number:04d}": 1 / count for number in range(count)}
    return [row.split for row in assign([replace(row, split="") for row in rows], fractions=shares, seed=seed, together=together)]


def _sites(rows: Sequence[ManifestRow], together: Iterable[tuple[str, str]]) -> list[str]:
    """The least name among the sites that belong together."""
    nameless = sum(not row.site for row in rows)
    if nameless:
        raise ConfigError(f"{nameless} of {len(rows)} scans name no site; give a column site to medssl prepare, or take folds by patient")
    least = {row.site: row.site for row in rows}
    of_block: defaultdict[str, list[str]] = defaultdict(list)
    for block, row in zip(blocks(rows, together), rows, strict=True):
        of_block[block].append(row.site)
    for sites in of_block.values():
        for one, other in pairwise(sites):
            low, high = sorted((least[one], least[other]))
            least = {site: low if name == high else name for site, name in least.items()}
    return [least[row.site] for row in rows]
