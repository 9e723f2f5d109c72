"""Equal voxels on both sides of a split."""

from dataclasses import replace

from medssl.data.leakage import check, duplicates
from medssl.data.manifest import ManifestRow

A = ManifestRow("a", "P1", "a.nii", split="train", sha256="1")
B = ManifestRow("b", "P2", "b.nii", split="test", sha256="1")


def test_equal_voxels_in_two_splits_leak() -> None:
    (pair,) = check([A, B])
    assert (pair.first, pair.second, pair.splits, pair.same_patient) == ("a", "b", ("train", "test"), False)


def test_equal_voxels_in_one_split_do_not_leak() -> None:
    assert check([A, replace(B, split="train")]) == []


def test_one_file_without_hash_in_two_splits_leaks() -> None:
    assert len(check([replace(A, sha256=""), replace(B, sha256="", image="a.nii")])) == 1


def test_different_scans_do_not_leak() -> None:
    assert check([A, replace(B, sha256="2")]) == []


def test_duplicates_are_found_before_there_are_splits() -> None:
    assert [str(pair) for pair in duplicates([replace(A, split=""), replace(B, split="")])] == ["a (no split) = b (no split)"]


def test_a_pair_names_no_patient() -> None:
    assert "P1" not in str(check([A, B])[0])
