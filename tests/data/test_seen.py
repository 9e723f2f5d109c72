"""Scans that a model has learned from are known again, wherever they come from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.leakage import Guard, Leakage
from medssl.data.prepare import prepare
from medssl.data.seen import Overlap, merged, overlap, record
from medssl.data.store import Store
from medssl.errors import ManifestError
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from tests.data.conftest import picture, save

Cohort = Callable[..., Path]


@pytest.fixture
def store(cohort: Cohort, tmp_path: Path) -> Store:
    prepare(cohort(), tmp_path / "store")
    return Store(tmp_path / "store")


def seen_of(store: Store, role: str = "training", split: str = "train") -> dict[str, Any]:
    rows = store.manifest.split(split)
    return merged({}, record(role, rows, store.signs(rows)))


def test_scans_of_training_are_known_and_those_of_test_are_not(store: Store) -> None:
    rows = store.manifest.rows
    found = overlap(seen_of(store), rows, store.signs(rows))
    assert set(found.learned) == {row.scan_id for row in store.manifest.split("train")}
    assert overlap(seen_of(store), store.manifest.split("test"), store.signs(store.manifest.split("test")), around=rows) == Overlap()


def test_scans_of_validation_are_told_apart(store: Store) -> None:
    rows = store.manifest.split("val")
    found = overlap(seen_of(store, "validation", "val"), rows, store.signs(rows))
    assert (found.learned, set(found.validation)) == ((), {row.scan_id for row in rows})
    assert "thresholds were chosen on" in found.sentences(len(rows))[0]


def test_a_scan_saved_again_under_another_name_is_known(store: Store, cohort: Cohort, tmp_path: Path) -> None:
    other = cohort(10, first=20, name="other")
    number = int(store.manifest.split("train")[0].patient[1:])
    save(other / "p25" / "image.nii.gz", np.rint(picture(number) * 1.2 + 7).astype(np.int16))
    prepare(other, tmp_path / "second")
    second = Store(tmp_path / "second")
    assert overlap(seen_of(store), second.manifest.rows, second.signs(second.manifest.rows)).learned == ("p25__image",)


def test_a_patient_is_known_by_another_scan_where_the_sets_share_one(store: Store) -> None:
    train, test = store.manifest.split("train")[0], store.manifest.split("test")[0]
    stranger = replace(test, patient=train.patient.upper())
    assert overlap(seen_of(store), [stranger], store.signs([test]), around=store.manifest.rows).learned == (test.scan_id,)


def test_an_id_alone_refuses_nothing_but_is_said(store: Store, cohort: Cohort, tmp_path: Path) -> None:
    other = cohort(10, first=30, name="other")
    text = (other / "patients.csv").read_text()
    (other / "patients.csv").write_text(text.replace("\np3", "\np").replace("p3p", "p"))
    prepare(other, tmp_path / "second")
    second = Store(tmp_path / "second")
    found = overlap(seen_of(store), second.manifest.rows, second.signs(second.manifest.rows))
    assert found.learned == ()
    assert len(found.same_ids) == len(store.manifest.split("train"))
    assert "may be other people" in found.sentences(10)[0]


def test_what_the_encoder_has_seen_goes_on_with_the_detector(store: Store) -> None:
    before = {**seen_of(store, "pretraining"), "allowed": ["a reason"]}
    rows = store.manifest.split("train")
    after = merged(before, record("training", rows, store.signs(rows)), reason="another")
    assert [scan["role"] for scan in after["scans"]] == ["pretraining"] * len(rows) + ["training"] * len(rows)
    assert after["allowed"] == ["a reason", "another"]
    assert merged(after, record("training", rows, store.signs(rows)))["scans"] == after["scans"]


def test_no_name_is_in_what_a_bundle_keeps(store: Store) -> None:
    text = str(seen_of(store))
    assert not any(f"'{row.patient}'" in text or row.scan_id in text or row.image in text for row in store.manifest.rows)


def test_prepare_stops_at_scans_that_the_bundle_has_seen(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    with pytest.raises(ManifestError, match="6 scans were in the training or pretraining of the bundle"):
        prepare(folder, tmp_path / "second", preprocess=store.preprocess, guard=Guard(seen=seen_of(store)))
    prepare(folder, tmp_path / "second", preprocess=store.preprocess, guard=Guard("to see the gap", seen_of(store)))
    assert Store(tmp_path / "second").leakage == Leakage(seen=6, reason="to see the gap")


def test_scans_that_a_table_keeps_for_training_may_have_been_seen(cohort: Cohort, tmp_path: Path) -> None:
    folder = cohort(splits=dict.fromkeys(range(6), "train"))
    prepare(folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    rows = [row for row in store.manifest.rows if row.patient in {f"p{number}" for number in range(6)}]
    seen = merged({}, record("pretraining", rows, store.signs(rows)))
    manifest, _ = prepare(folder, tmp_path / "second", guard=Guard(seen=seen))
    assert len(manifest.rows) == 10


def bundle_of(folder: Path, store: Store, seen: dict[str, Any]) -> Path:
    """A detector that has learned nothing but says what it has seen."""
    network = ResidualUNet(widths=(2, 4))
    points: dict[str, dict[str, object]] = {"scan": {"threshold": 0.5, "rule": "youden"}}
    window = Window((8, 8), flips=False)
    Bundle("segmentation", network.architecture(), store.preprocess, window, operating_points=points, seen=seen).write(folder, network, "")
    return folder


def notes_of(out: Path) -> list[str]:
    notes: list[str] = json.loads((out / "metrics.json").read_text())["notes"]
    return notes


@pytest.mark.parametrize("role", ["training", "pretraining"])
def test_evaluate_refuses_scans_that_the_bundle_has_learned_from(
    store: Store, tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(tmp_path / "bundle", store, seen_of(store, role))
    for split in ("train", "all"):
        assert main(["evaluate", str(bundle), str(store.folder), "--split", split, "--out", str(tmp_path / "out")]) == 2
        assert "patient_leak: 6 scans were in the training or pretraining of the bundle" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(["evaluate", str(bundle), str(store.folder), "--split", "test", "--out", str(tmp_path / "out")]) == 0
    assert not [note for note in notes_of(tmp_path / "out") if "independent test" in note]


def test_a_reason_for_copies_within_a_store_is_none_to_score_what_a_bundle_has_learned_from(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "scans", tmp_path / "second", guard=Guard("copies are alike by nature"))
    bundle = bundle_of(tmp_path / "bundle", store, seen_of(store, "pretraining"))
    evaluate = ["evaluate", str(bundle), str(tmp_path / "second"), "--split", "all", "--out", str(tmp_path / "out")]
    assert main(evaluate) == 2
    assert "--allow-seen REASON" in capsys.readouterr().err
    assert main([*evaluate, "--allow-seen", "to see\nthe gap"]) == 0
    notes = notes_of(tmp_path / "out")
    assert notes[0] == "Scans that the model has learned from were allowed. The reason given: to see the gap"
    assert notes[2].startswith("6 of 10 scans were in the training or pretraining of this model")


def test_what_a_store_allows_is_scored_and_stands_on_top_of_the_report(store: Store, tmp_path: Path) -> None:
    seen = merged(seen_of(store), [], reason="an older sin")
    prepare(tmp_path / "scans", tmp_path / "second", guard=Guard("<b>to see the gap</b>", seen))
    bundle = bundle_of(tmp_path / "bundle", store, seen)
    assert main(["evaluate", str(bundle), str(tmp_path / "second"), "--split", "all", "--out", str(tmp_path / "out")]) == 0
    first, second, third = notes_of(tmp_path / "out")[:3]
    assert first.endswith("The reason given: <b>to see the gap</b>")
    assert second.endswith("The reason given: an older sin")
    assert third.startswith("6 of 10 scans were in the training or pretraining of this model")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;to see the gap&lt;/b&gt;" in page


def test_leakage_on_the_way_to_a_model_is_said_of_scans_in_a_folder_too(store: Store, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", store, merged(seen_of(store), [], reason="an older sin"))
    scans = [str(bundle), str(tmp_path / "scans" / "p0"), "--out", str(tmp_path / "out")]
    assert main(["score", *scans]) in (0, 1)
    assert main(["report", str(tmp_path / "out")]) == 0
    assert notes_of(tmp_path / "out")[0].endswith("The reason given: an older sin")
    assert notes_of(tmp_path / "out")[1].startswith("The scans were not compared with those that the model has learned from")


def test_the_command_compares_new_scans_with_the_bundle(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of(tmp_path / "bundle", store, seen_of(store))
    arguments = ["prepare", str(tmp_path / "scans"), "--out", str(tmp_path / "second"), "--like", str(bundle)]
    assert main(arguments) == 2
    assert "6 scans were in the training or pretraining" in capsys.readouterr().err
    assert main([*arguments, "--allow-leakage", "on purpose"]) == 0
