"""A cross-validation from one configuration."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.dataset import Case
from medssl.data.held_out import read_output
from medssl.data.manifest import ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.seen import counts, merged, record
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.evaluation.calibration import tempered
from medssl.models.architecture import Architecture
from medssl.models.bundle import Bundle
from medssl.models.ensemble import Ensemble
from medssl.models.inference import Window, slice_scores
from medssl.scoring.finding import Finding
from medssl.scoring.out_of_fold import write_out_of_fold
from medssl.training.finetuning.folds import Folds, Parts, member_facts
from medssl.training.finetuning.lesions import LesionModule
from medssl.training.launch import launch_finetune

FOLDS = ["--folds.count", "2"]


def fold(run: Path, number: int) -> Path:
    return run / "folds" / str(number) / "bundle"


@pytest.fixture
def run(tmp_path: Path, scratch: list[str]) -> Path:
    """A finished cross-validation over two folds."""
    launch_finetune([*scratch, *FOLDS, "--out", str(tmp_path / "run")])
    return tmp_path / "run"


def test_folds_end_as_one_bundle_that_is_their_ensemble(run: Path) -> None:
    bundle = Bundle.read(run / "bundle")
    ensemble, images = bundle.load(run / "bundle"), torch.randn(1, 1, 16, 16)
    members = [Bundle.read(fold(run, number)).load(fold(run, number)) for number in (0, 1)]
    with torch.inference_mode():
        mean = torch.stack([member(images).sigmoid() for member in members]).mean(dim=0)
        torch.testing.assert_close(ensemble(images).sigmoid(), mean, atol=1e-6, rtol=1e-5)
    assert isinstance(ensemble, Ensemble)
    assert counts(bundle.seen) == {"training": 4, "validation": 4}
    assert bundle.operating_points["slice"]["chosen_on"] == "out-of-fold scores"
    assert bundle.operating_points["slice"]["n"] == 16


@pytest.mark.parametrize(("name", "value"), [("--training.strategy", "fsdp"), ("--feed.batch_size", "3")])
def test_what_cannot_run_leaves_no_folder_of_folds(
    tmp_path: Path, scratch: list[str], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"fsdp|batch_size"):
        launch_finetune([*scratch, *FOLDS, name, value, "--training.accumulate", "2", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_every_patient_is_scored_by_the_network_that_did_not_learn_from_them(run: Path, store: Path) -> None:
    held = [{path.stem for path in (fold(run, number).parent / "held_out").glob("*.npz")} for number in (0, 1)]
    digests = {row.scan_id: row.sha256 for row in Store(store).manifest.rows}
    for number in (0, 1):
        scans = Bundle.read(fold(run, number)).seen["scans"]
        learned = {scan["voxels"] for scan in scans if scan["role"] == "training"}
        assert learned == {digests[scan_id] for scan_id in held[1 - number]}
    assert held[0] | held[1] == set(digests)
    assert not held[0] & held[1]


def test_out_of_fold_results_carry_what_each_fold_said_at_the_locked_thresholds(run: Path) -> None:
    assert write_out_of_fold(run) == {"scored": 4}
    facts = json.loads((run / "out_of_fold" / "run.json").read_text())
    assert facts["split"] == "cross-validation"
    assert "had not learned from its patient (2 folds by patient, of the splits train, val)" in facts["leakage"][0]
    assert "No test split was kept aside" in facts["leakage"][1]
    bundle = Bundle.read(run / "bundle")
    for path in sorted((run / "folds").glob("*/held_out/*.npz")):
        finding = Finding.read(run / "out_of_fold" / "scans" / f"{path.stem}.json")
        slices = slice_scores(torch.from_numpy(read_output(path.parent, path.stem)[0]))
        assert finding.slice_scores == pytest.approx(tempered(slices, bundle.temperature("slice")).tolist())
        assert finding.threshold == bundle.operating_points["scan"]["threshold"]
    with (run / "out_of_fold" / "reference.csv").open() as table:
        assert {row["scan_id"] for row in csv.DictReader(table)} == {"s0", "s1", "s2", "s3"}


def test_the_command_writes_the_out_of_fold_results(tmp_path: Path, scratch: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from medssl.cli import main

    assert main(["finetune", *scratch, *FOLDS, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "out_of_fold" / "results.csv").is_file()
    assert "medssl report run/out_of_fold gives cross-validated numbers" in capsys.readouterr().out


def test_folds_run_one_by_one_end_as_those_run_together(run: Path, tmp_path: Path, scratch: list[str]) -> None:
    arguments = [*scratch, *FOLDS, "--out", str(tmp_path / "apart")]
    first = launch_finetune([*arguments, "--folds.run", "[0]"])
    assert "folds" not in first.training
    assert launch_finetune([*arguments, "--folds.run", "[1]"]).weights_id == Bundle.read(run / "bundle").weights_id


def test_a_killed_cross_validation_goes_on_where_it_was(
    run: Path, tmp_path: Path, scratch: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, step, last = [*scratch, *FOLDS, "--out", str(tmp_path / "cut")], LesionModule.training_step, []

    def stop(module: LesionModule, batch: object, batch_idx: int) -> torch.Tensor:
        last.extend([module.global_step] * (module.global_step == 3))
        if len(last) == 2:  # the second fold
            raise InterruptedError
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LesionModule, "training_step", stop)
        with pytest.raises(InterruptedError):
            launch_finetune(arguments)
    first = fold(tmp_path / "cut", 0) / "weights.safetensors"
    before = first.stat().st_mtime_ns
    resumed = launch_finetune([*arguments, "--resume", "true"])
    assert resumed.weights_id == Bundle.read(run / "bundle").weights_id
    assert first.stat().st_mtime_ns == before


def test_each_fold_selects_its_weights_on_patients_that_it_neither_learns_from_nor_holds_out(tmp_path: Path) -> None:
    rows = [ManifestRow(f"s{number}", f"p{number}", f"x{number}") for number in range(12)]
    cases = [Case(row, None, (1, 2, 2, 2), -1, False, np.array([])) for row in rows]  # type: ignore[arg-type]
    part = Parts(Folds(), (cases[:4], cases[4:8], cases[8:]), 0.25).part(1, tmp_path)
    assert [len(part.train), len(part.selecting), len(part.held)] == [6, 2, 4]
    assert part.held == cases[4:8]
    assert {case.row.scan_id for case in [*part.train, *part.selecting, *part.held]} == {row.scan_id for row in rows}


def test_nearly_equal_scans_stay_together_when_a_fold_sets_patients_aside(tmp_path: Path) -> None:
    rows = [ManifestRow(f"s{number}", f"p{number}", f"x{number}") for number in range(12)]
    cases = [Case(row, None, (1, 2, 2, 2), -1, False, np.array([])) for row in rows]  # type: ignore[arg-type]
    together = tuple((f"s{number}", f"s{number + 8}") for number in range(4))
    part = Parts(Folds(), (cases[:4], cases[4:8], cases[8:]), 0.25, (*together, ("s0", "s4"))).part(1, tmp_path)
    train, selecting = ({case.row.scan_id for case in found} for found in (part.train, part.selecting))
    assert selecting
    assert all(len(selecting.intersection(pair)) != 1 for pair in together)
    assert not train & selecting


def test_scans_that_a_fold_has_learned_from_all_the_same_are_told_by_whether_it_knew_their_labels(run: Path, store: Path) -> None:
    rows = {row.scan_id: row for row in Store(store).manifest.rows}
    for number, role in enumerate(("training", "pretraining")):
        folder = fold(run, number)
        held = [rows[path.stem] for path in (folder.parent / "held_out").glob("*.npz")]
        bundle = Bundle.read(folder)
        seen = merged(bundle.seen, record(role, held, Store(store).signs(held)))
        replace(bundle, seen=seen).write(folder, bundle.load(folder), "")
    write_out_of_fold(run)
    said = json.loads((run / "out_of_fold" / "run.json").read_text())["leakage"]
    assert said[3] == "2 of 4 scans were in the pretraining of the networks, without their labels: no independent test."
    assert said[4].startswith("2 of 4 scans, near copies of them or other scans of their patients were in the training")


def test_the_card_of_an_ensemble_says_what_it_is(run: Path) -> None:
    card = (run / "bundle" / "MODEL_CARD.md").read_text()
    assert "the mean of 2 members from folds by patient" in card
    assert "| cross validation | 4 | 4 | with lesion 2, without lesion 2 | not known 4 |" in card
    assert re.search(r"\| slice \| [\d.]+ \| youden midway \| out-of-fold scores, 16 slices \| [\d.]+ \(\d of 4\) \[", card)


def test_folds_of_few_labelled_patients_say_what_each_learned_from(tmp_path: Path, scratch: list[str]) -> None:
    bundle = launch_finetune([*scratch, *FOLDS, "--labels.patients", "1", "--protocol", "auto", "--out", str(tmp_path / "run")])
    assert write_out_of_fold(tmp_path / "run") == {"scored": 4}
    members = [Bundle.read(fold(tmp_path / "run", number)).training for number in (0, 1)]
    kept = ("scans", "patients", "steps", "protocol", "advice")
    assert bundle.training["members"] == [{name: one[name] for name in kept} for one in members]
    assert (bundle.training["scans"], bundle.training["patients"]) == (2, 2)
    assert [one["patients"] for one in members] == [1, 1]
    assert "advice" not in bundle.training
    card = (tmp_path / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "- trained on 2 scans of 2 patients" in card
    assert "- fold 1: trained on 1 scans of 1 patients\n- fold 1: protocol full\n" in card


def test_a_protocol_is_of_all_folds_only_where_they_have_the_same() -> None:
    def of(name: str) -> Bundle:
        facts = {"scans": 2, "patients": 2, "steps": 4, "protocol": {"name": name}, "selection": {}}
        return Bundle("segmentation", Architecture("x", {}), Preprocess(), Window((8, 8)), training=facts)

    assert member_facts([of("full"), of("full")])["protocol"] == {"name": "full"}
    assert "protocol" not in member_facts([of("full"), of("light")])


def test_a_fold_that_there_is_not_is_refused(tmp_path: Path, scratch: list[str]) -> None:
    with pytest.raises(ConfigError, match="asks for fold 2, there are 0 to 1"):
        launch_finetune([*scratch, *FOLDS, "--folds.run", "[2]", "--out", str(tmp_path / "run")])


def test_one_fold_is_no_cross_validation() -> None:
    with pytest.raises(ConfigError, match="count must be >= 2"):
        Folds(count=1)
