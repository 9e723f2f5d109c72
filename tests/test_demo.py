"""The whole flow through the command line, on the smoke preset."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.cli import main
from medssl.data.leakage import Guard
from medssl.errors import ConflictError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--preset", "smoke", "--out", str(out)]) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_stage_leaves_its_folder(demo: Path) -> None:
    assert {"cohort", "store", "pretrain", "finetune", "evaluation", "results"} <= {path.name for path in demo.iterdir()}


def test_the_report_counts_the_test_patients(demo: Path) -> None:
    metrics = json.loads((demo / "evaluation" / "metrics.json").read_text())
    patients = {row["patient"] for row in rows(demo / "store" / "manifest.csv") if row["split"] == "test"}
    sensitivity, specificity = (metrics["patient"][name] for name in ("sensitivity", "specificity"))
    assert sensitivity["n"] + specificity["n"] == len(patients)


def test_no_patient_is_in_two_splits(demo: Path) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows(demo / "store" / "manifest.csv"):
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_the_unseen_files_give_the_verdicts_of_the_store(demo: Path) -> None:
    stored = {finding["source"]: finding for finding in findings(demo / "evaluation")}
    unseen = findings(demo / "results")
    assert len(unseen) == len(stored)
    for finding in unseen:
        assert finding["score"] == pytest.approx(stored[finding["source"]]["score"], abs=0.02)


def findings(results: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in (results / "scans").glob("*.json")]


def test_the_bundle_knows_its_encoder(demo: Path) -> None:
    fields = json.loads((demo / "finetune" / "bundle" / "bundle.json").read_text())
    assert len(fields["lineage"]) == 1


def test_a_report_can_be_made_from_the_results(demo: Path, tmp_path: Path) -> None:
    assert main(["report", str(demo / "results"), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").is_file()


def test_nothing_names_a_path_of_this_machine(demo: Path) -> None:
    for folder in ("evaluation", "results"):
        for path in (demo / folder).rglob("*"):
            if path.suffix in {".json", ".csv", ".html"}:
                assert str(demo) not in path.read_text(), path


def test_a_demo_is_never_overwritten(demo: Path) -> None:
    assert main(["demo", "--preset", "smoke", "--out", str(demo)]) == 3


def test_equal_scans_are_kept_together_where_a_demo_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def stop(*_: object, guard: Guard, **__: object) -> None:
        asked.append(guard.keep_together)
        raise ConflictError("stopped")

    monkeypatch.setattr("medssl.demo.prepare", stop)
    assert main(["demo", "--data", str(tmp_path), "--keep-together", "--out", str(tmp_path / "run")]) == ConflictError.exit_code
    assert asked == [True]


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Ten scans of ten patients, of which nothing is known."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(10):
        values = np.random.default_rng(number).integers(0, 100, (16, 16, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([1, 1, 3, 1])), folder / f"p{number}.nii.gz")
    return folder


def test_scans_without_labels_are_refused_before_anything_is_trained(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--preset", "smoke", "--data", str(unlabelled), "--out", str(tmp_path / "run")]) == 2
    assert "patients.csv" in capsys.readouterr().err
    assert not (tmp_path / "run" / "pretrain.yaml").exists()


def test_a_demo_goes_on_once_there_are_labels(unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise ConflictError("training begins")

    monkeypatch.setattr("medssl.demo._train", stop)
    arguments = ["demo", "--preset", "smoke", "--data", str(unlabelled), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    lines = [f"p{number},p{number}.nii.gz,{number % 2}" for number in range(10)]
    (unlabelled / "patients.csv").write_text("\n".join(["patient,image,label", *lines]))
    assert main(arguments) == ConflictError.exit_code


def test_a_store_of_other_scans_is_never_overwritten(unlabelled: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(unlabelled), "--out", str(tmp_path / "run" / "store")]) == 0
    assert main(["demo", "--preset", "smoke", "--out", str(tmp_path / "run")]) == ConflictError.exit_code


def test_a_demo_that_leaves_scans_out_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.demo.run_demo", lambda *_, **__: 2)
    assert main(["demo"]) == 1
