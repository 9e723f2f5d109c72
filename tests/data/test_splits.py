"""Splits: by patient, repeatable, balanced."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from medssl.data.manifest import ManifestRow
from medssl.data.splits import assign, check_seed
from medssl.errors import ConfigError


def cohort(patients: int, scans: int = 2) -> list[ManifestRow]:
    return [
        ManifestRow(f"{p}-{s}", f"P{p}", f"{p}/{s}.nii", site="AB"[p % 2], label=("normal", "lesion")[p // 2 % 2])
        for p in range(patients)
        for s in range(scans)
    ]


def splits_of(rows: list[ManifestRow]) -> dict[str, str]:
    return {row.scan_id: row.split for row in rows}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=str(seed)):
        check_seed(seed)


def test_all_scans_of_a_patient_are_in_one_split() -> None:
    rows = assign(cohort(20), seed=3)
    assert all(len({row.split for row in rows if row.patient == patient}) == 1 for patient in {row.patient for row in rows})


def test_the_shares_are_those_asked_for() -> None:
    assert Counter(row.split for row in assign(cohort(40, 1), seed=0)) == {"train": 24, "val": 8, "test": 8}


def test_rounding_in_two_classes_does_not_favour_one_split() -> None:
    assert Counter(row.split for row in assign(cohort(24, 1), seed=0)) == {"train": 14, "val": 5, "test": 5}


def test_every_split_has_every_class_and_site() -> None:
    rows = assign(cohort(20, 1), seed=5)
    assert len({(row.split, row.label, row.site) for row in rows}) == 12


def test_a_class_of_three_patients_reaches_all_splits() -> None:
    rows = [*cohort(40, 1), *(ManifestRow(f"r{n}", f"R{n}", f"r{n}.nii", label="rare") for n in range(3))]
    assert {row.split for row in assign(rows) if row.label == "rare"} == {"train", "val", "test"}


def test_the_draw_repeats_whatever_the_order_of_rows() -> None:
    rows = cohort(20)
    assert splits_of(assign(rows, seed=1)) == splits_of(assign(rows[::-1], seed=1))


def test_another_seed_draws_another_split() -> None:
    assert splits_of(assign(cohort(20), seed=1)) != splits_of(assign(cohort(20), seed=2))


def test_a_split_that_is_given_is_kept_and_its_patient_follows() -> None:
    rows = cohort(20)
    rows[0] = replace(rows[0], split="test")
    assert {row.split for row in assign(rows) if row.patient == "P0"} == {"test"}


def test_given_splits_count_towards_the_shares() -> None:
    rows = [replace(row, split="test") if index < 4 else row for index, row in enumerate(cohort(20, 1))]
    assert Counter(row.split for row in assign(rows))["test"] == 4


def test_names_that_differ_by_case_are_one_patient() -> None:
    rows = [ManifestRow("a", "p1", "a.nii"), ManifestRow("b", "P1 ", "b.nii"), *cohort(8)]
    assert len({row.split for row in assign(rows)[:2]}) == 1


def test_patients_with_equal_voxels_stay_together() -> None:
    rows = [replace(row, sha256="same" if row.patient in ("P1", "P7", "P12") else row.scan_id) for row in cohort(20)]
    assert len({row.split for row in assign(rows) if row.sha256 == "same"}) == 1


def test_patients_of_a_pair_stay_together() -> None:
    rows = assign(cohort(20), together=[("1-0", "7-1"), ("7-0", "12-0")])
    assert len({row.split for row in rows if row.patient in ("P1", "P7", "P12")}) == 1


def test_one_patient_goes_to_training() -> None:
    assert [row.split for row in assign(cohort(1, 1))] == ["train"]


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        assign(cohort(2), fractions={"train": 0.5})


def test_a_block_of_many_patients_counts_as_so_many() -> None:
    rows = cohort(40, 1)
    sick = [row for row in rows if row.label == "lesion"]  # 20 patients
    chain = [(one.scan_id, other.scan_id) for part in (sick[:8], sick[8:12]) for one, other in pairwise(part)]
    found = Counter(row.split for row in assign(rows, together=chain) if row.label == "lesion")
    assert found == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize(("classes", "count", "size"), [(1, 3, 10), (2, 3, 2), (10, 1, 2)])
def test_no_split_is_empty_where_all_patients_are_in_blocks(classes: int, count: int, size: int) -> None:
    names = [[[f"{c}-{b}-{p}" for p in range(size)] for b in range(count)] for c in range(classes)]
    rows = [ManifestRow(name, name, f"{name}.nii", label=f"c{c}") for c, blocks in enumerate(names) for block in blocks for name in block]
    chain = [pair for blocks in names for block in blocks for pair in pairwise(block)]
    assert {row.split for row in assign(rows, together=chain)} == {"train", "val", "test"}


def test_a_patient_spelled_in_two_ways_counts_once() -> None:
    rows = cohort(40, 2)
    spelled = [replace(row, patient=f" {row.patient.lower()}") if row.scan_id.endswith("1") else row for row in rows]
    assert splits_of(assign(spelled, seed=2)) == splits_of(assign(rows, seed=2))
