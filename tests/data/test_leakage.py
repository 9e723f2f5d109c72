"""Equal and nearly equal voxels on both sides of a split."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.leakage import Guard, Leakage, check, duplicates
from medssl.data.manifest import ManifestRow
from medssl.data.prepare import prepare
from medssl.data.seals import seal, unseal
from medssl.data.store import Store
from medssl.errors import ManifestError, UsageError
from tests.data.conftest import picture, save

Cohort = Callable[..., Path]

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


def again(folder: Path, patient: int, of: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give a patient the scan of another one, changed."""
    save(folder / f"p{patient}" / "image.nii.gz", np.rint(change(picture(of))).astype(np.int16))


def noisy(array: np.ndarray) -> np.ndarray:
    return 1.3 * array + np.random.default_rng(5).normal(0, 4, array.shape)


CHANGES = {
    "equal": lambda array: array,
    "noise and another scale": noisy,
    "mirrored": lambda array: array[::-1],
}


@pytest.fixture(params=CHANGES, ids=lambda name: name.replace(" ", "_"))
def leaky(request: pytest.FixtureRequest, cohort: Cohort) -> Path:
    """Patient 8 of test has the scan of patient 1 of training, more or less."""
    folder = cohort(splits={1: "train", 8: "test"})
    again(folder, 8, 1, CHANGES[request.param])
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_content_in_two_splits_of_a_table_stops_prepare_with_the_pair(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="1 pairs .* p1__image .train. [=~] p8__image .test.") as caught:
        prepare(leaky, tmp_path / "store")
    assert (caught.value.code, caught.value.exit_code) == ("patient_leak", 2)
    assert [(row["first"], row["second"]) for row in table(tmp_path / "store" / "leakage.csv")] == [("p1__image", "p8__image")]
    assert not (tmp_path / "store" / "manifest.csv").exists()


def test_a_reason_lets_it_pass_and_is_kept(leaky: Path, tmp_path: Path) -> None:
    prepare(leaky, tmp_path / "store", guard=Guard("twins,\nsaid the\x00 clinic"))
    leakage = Store(tmp_path / "store").leakage
    assert leakage == Leakage(pairs=1, crossing=1, reason="twins, said the clinic")
    assert "twins, said the clinic" in leakage.sentences()[0]
    marked = {row["scan_id"]: row["leakage"] for row in table(tmp_path / "store" / "manifest.csv") if row["leakage"]}
    assert set(marked) == {"p1__image", "p8__image"}
    assert all("twins" in text for text in marked.values())


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_content_under_two_patients_stops_prepare_wherever_it_would_fall(cohort: Cohort, tmp_path: Path, change: str) -> None:
    folder = cohort(4)
    again(folder, 3, 1, CHANGES[change])
    with pytest.raises(
        ManifestError, match="1 pairs .* p1__image .* p3__image .* same patient, .*--keep-together, .*--allow-leakage"
    ) as caught:
        prepare(folder, tmp_path / "store")
    assert (caught.value.code, caught.value.exit_code) == ("patient_leak", 2)
    assert [(row["first"], row["second"]) for row in table(tmp_path / "store" / "leakage.csv")] == [("p1__image", "p3__image")]
    assert not (tmp_path / "store" / "manifest.csv").exists()


def test_patients_of_the_same_content_are_drawn_into_one_split_when_asked_for(cohort: Cohort, tmp_path: Path) -> None:
    folder = cohort(20)
    for patient, change in zip((9, 10, 11), CHANGES.values(), strict=True):
        again(folder, patient, 1, change)
    manifest, _ = prepare(folder, tmp_path / "store", guard=Guard(keep_together=True))
    assert len({row.split for row in manifest.rows if row.patient in ("p1", "p9", "p10", "p11")}) == 1
    leakage = Store(tmp_path / "store").leakage
    assert (leakage.crossing, leakage.kept_together) == (0, True)
    assert leakage.pairs >= 3


def test_pairs_across_the_splits_of_a_table_stop_even_those_who_keep_together(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="different splits that the table fixes: p1__image .train. [=~] p8__image .test.") as caught:
        prepare(leaky, tmp_path / "store", guard=Guard(keep_together=True))
    assert "--keep-together" not in str(caught.value)


def test_a_store_without_the_word_on_keeping_together_is_still_read(cohort: Cohort, tmp_path: Path) -> None:
    prepare(cohort(), tmp_path / "store")
    record = unseal((tmp_path / "store" / "leakage.json").read_bytes()) or {}
    del record["kept_together"]
    (tmp_path / "store" / "leakage.json").write_bytes(seal(record))
    assert Store(tmp_path / "store").leakage == Leakage()


@pytest.mark.parametrize("given", [["--keep-together"], ["--keep_together", "true"]])
def test_the_command_keeps_together_and_says_so(
    cohort: Cohort, tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cohort()
    again(folder, 8, 1, noisy)
    arguments = ["prepare", str(folder), "--out", str(tmp_path / "store")]
    assert main(arguments) == 2
    assert main([*arguments, *given]) == 0
    assert "1 pairs of equal or nearly equal scans of different patients were kept together" in capsys.readouterr().out


def test_different_patients_are_not_held_for_one(cohort: Cohort, tmp_path: Path) -> None:
    prepare(cohort(30), tmp_path / "store")
    assert Store(tmp_path / "store").leakage == Leakage()
    assert not (tmp_path / "store" / "leakage.csv").exists()


def test_two_scans_of_one_patient_may_be_alike(cohort: Cohort, tmp_path: Path) -> None:
    folder = cohort()
    again(folder, 8, 1, noisy)
    rows = table(folder / "patients.csv")
    rows[8]["patient"] = " P1 "
    with (folder / "patients.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare(folder, tmp_path / "store")
    assert Store(tmp_path / "store").leakage.pairs == 0


@pytest.mark.parametrize("option", ["--allow-leakage", "--allow_leakage"])
def test_the_command_takes_the_reason(cohort: Cohort, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cohort(splits={1: "train", 8: "test"})
    again(folder, 8, 1, noisy)
    assert main(["prepare", str(folder), "--out", str(tmp_path / "store")]) == 2
    assert "--allow-leakage REASON" in capsys.readouterr().err
    assert main(["prepare", str(folder), "--out", str(tmp_path / "store"), option, "one person, two names"]) == 0
    assert json.loads((tmp_path / "store" / "leakage.json").read_text())["reason"] == "one person, two names"


def test_a_reason_longer_than_a_report_can_print_is_refused() -> None:
    with pytest.raises(UsageError, match="301 letters"):
        Guard("x" * 301)
