"""A network that marks bright voxels, on three small scans: what is scored under each condition, and what is kept."""

import csv
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medssl.data.dataset import load_cases
from medssl.data.manifest import ManifestRow
from medssl.data.prepare import prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store, decode
from medssl.errors import ManifestError, UsageError
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from medssl.scoring.predictor import Predictor
from medssl.scoring.robustness import CLEAN, Condition, Panel, drawn, score_robustness, subject_of
from medssl.views.corruptions import CORRUPTIONS
from medssl.views.retests import RETESTS
from medssl.volume import Volume

POINTS = {"scan": {"threshold": 0.5}, "slice": {"threshold": 0.5}, "voxel": {"threshold": 0.5, "min_voxels": 1}}
SHAPE = (24, 20, 4)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([1.0, 1.0, 4.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def prepared(folder: Path, preprocess: Preprocess | None = None) -> Path:
    """Three patients, all for testing; the first two have a bright lesion left of the middle."""
    table = [["patient", "site", "image", "lesion", "split", "modality"]]
    for number in range(3):
        texture = gaussian_filter(np.random.default_rng(number).normal(size=SHAPE), (2, 2, 1))
        values, lesion = 200 + 20 * texture / texture.std(), np.zeros(SHAPE, np.uint8)
        lesion[4:9, 6:11, 1:3] = number < 2
        values[[0, -1]] = values[:, [0, -1]] = 0
        save(folder / "scans" / f"p{number}" / "image.nii.gz", np.rint(values + 130 * lesion).astype(np.int16))
        save(folder / "scans" / f"p{number}" / "lesion.nii.gz", lesion)
        table.append([f"p{number}", "AB"[number % 2], f"p{number}/image.nii.gz", f"p{number}/lesion.nii.gz", "test", "MR"])
    with (folder / "scans" / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    prepare(folder / "scans", folder / "store", preprocess=preprocess or Preprocess())
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(prepared(tmp_path))


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    network = ResidualUNet(widths=(2, 4))
    window = Window((16, 16), flips=False, foreground=False)
    Bundle("segmentation", network.architecture(), Preprocess(), window, operating_points=POINTS).write(tmp_path / "bundle", network, "")
    predictor = Predictor(tmp_path / "bundle")
    monkeypatch.setattr(predictor.network, "forward", lambda images: images * 10 - 15)
    return predictor


def panel_of(predictor: Predictor, store: Store) -> Panel:
    cases = load_cases(store, store.manifest.rows, classes=predictor.classes)
    return Panel(predictor, store, [subject_of(store, case) for case in cases], 0)


@pytest.fixture
def panel(predictor: Predictor, store: Store) -> Panel:
    return panel_of(predictor, store)


def few(monkeypatch: pytest.MonkeyPatch, *conditions: Condition) -> None:
    monkeypatch.setattr(Panel, "conditions", lambda _: [CLEAN, *conditions])


BLUR = Condition("damage", "blur", 3)
NOISE = Condition("damage", "rician_noise", 5)


def test_the_clean_scan_is_scored_as_evaluation_scores_it(panel: Panel) -> None:
    outcome = next(panel.outcomes(CLEAN))
    row, store = panel.subjects[0].row, panel.store
    scan = Volume(decode(store.image(row)), store.geometry(row), "MR")
    finding = panel.predictor.score_prepared(scan, scan_id="a", source="").finding
    assert outcome.score == pytest.approx(finding.score, abs=1e-3)
    assert outcome.slice_scores == pytest.approx(finding.slice_scores, abs=0.02)  # float16 in the store
    assert (outcome.label, outcome.slice_labels) == (1, (0, 1, 1, 0))
    assert outcome.dice is not None and outcome.dice > 0.9


def test_a_scan_without_lesion_has_labels_and_no_dice(panel: Panel) -> None:
    *_, outcome = panel.outcomes(CLEAN)
    assert (outcome.label, outcome.slice_labels, outcome.dice) == (0, (0, 0, 0, 0), None)


def test_damage_is_done_before_preprocessing_where_the_scan_can_be_reached(panel: Panel) -> None:
    assert {subject.origin for subject in panel.subjects} == {"original"}
    clean, damaged = next(panel.outcomes(CLEAN)), next(panel.outcomes(NOISE))
    assert damaged.slice_scores != clean.slice_scores
    assert damaged.slice_labels == clean.slice_labels


def test_what_the_store_holds_serves_where_the_data_folder_is_gone(panel: Panel, tmp_path: Path) -> None:
    original = {condition: list(panel.outcomes(condition)) for condition in (CLEAN, BLUR)}
    shutil.rmtree(tmp_path / "scans")
    gone = panel_of(panel.predictor, Store(tmp_path / "store"))
    assert {subject.origin for subject in gone.subjects} == {"prepared"}
    for outcome, other in zip(gone.outcomes(CLEAN), original[CLEAN], strict=True):
        assert outcome.dice == pytest.approx(other.dice, abs=0.01)
        assert outcome.slice_scores == pytest.approx(other.slice_scores, abs=0.03)  # float16, and a steep network
    for outcome, other in zip(gone.outcomes(BLUR), original[BLUR], strict=True):
        assert outcome.dice == pytest.approx(other.dice, abs=0.1)
        assert outcome != next(gone.outcomes(CLEAN))


def test_an_edited_scan_is_not_taken_for_the_prepared_one(tmp_path: Path) -> None:
    prepared(tmp_path)
    path = tmp_path / "scans" / "p0" / "image.nii.gz"
    array = np.asarray(nib.load(path).dataobj).copy()
    array[5, 5, 1] += 1
    save(path, array)
    store = Store(tmp_path / "store")
    assert [subject_of(store, case).origin for case in load_cases(store, store.manifest.rows)] == ["prepared", "original", "original"]


def test_damage_is_done_to_what_is_left_of_a_defaced_scan(tmp_path: Path, predictor: Predictor) -> None:
    face = np.zeros(SHAPE, np.uint8)
    face[12:20, 4:16] = 1
    save(tmp_path / "scans" / "face.nii.gz", face)
    prepared(tmp_path)
    table = tmp_path / "scans" / "patients.csv"
    header, *lines = table.read_text().split()
    table.write_text("\n".join([f"{header},defaced", *(f"{line},face.nii.gz" for line in lines)]))
    prepare(tmp_path / "scans", tmp_path / "store", preprocess=Preprocess())
    panel = panel_of(predictor, Store(tmp_path / "store"))
    assert {subject.origin for subject in panel.subjects} == {"original"}
    assert not panel._loaded(panel.subjects[0])[0].array[0][face > 0].any()
    save(tmp_path / "scans" / "face.nii.gz", np.roll(face, 1, axis=0))
    assert {subject.origin for subject in panel_of(predictor, panel.store).subjects} == {"prepared"}


@pytest.mark.parametrize("name", RETESTS)
def test_the_truth_follows_a_repeated_scan(panel: Panel, name: str) -> None:
    outcome, clean = next(panel.outcomes(Condition("again", name))), next(panel.outcomes(CLEAN))
    assert outcome.slice_labels == clean.slice_labels
    assert outcome.dice == pytest.approx(clean.dice, abs=0.15)


def test_values_of_ct_are_damaged_in_hu_also_from_a_store(tmp_path: Path, predictor: Predictor) -> None:
    window = Preprocess(intensity="window", window_hu=(-100.0, 400.0))
    store = Store(prepared(tmp_path / "ct", window))
    cases = load_cases(store, [replace(row, modality="") for row in store.manifest.rows])
    subjects = [replace(subject_of(store, case), origin="prepared") for case in cases]
    panel = Panel(predictor, store, subjects, 0)
    assert {subject.modality for subject in subjects} == {"CT"}
    scan, preprocess = panel._loaded(subjects[0])
    original = np.asarray(nib.load(tmp_path / "ct" / "scans" / "p0" / "image.nii.gz").dataobj)
    np.testing.assert_allclose(scan.array[0], original, atol=0.3)
    shifted = preprocess(panel._shown(scan, subjects[0], Condition("damage", "intensity_shift", 5)))
    change = (shifted.array[0] - cases[0].image[0].astype(np.float32))[2:-2, 2:-2]
    assert np.abs(change).max() == pytest.approx(80 / 500, abs=2e-3)


def test_conditions_are_those_that_can_happen_to_the_scans(panel: Panel) -> None:
    names = {condition.name for condition in panel.conditions() if condition.group == "damage"}
    assert names == {name for name, corruption in CORRUPTIONS.items() if "MR" in corruption.kinds}
    ct = replace(panel, subjects=[replace(subject, modality="CT") for subject in panel.subjects])
    assert {"bias_field", "ghosting", "motion"}.isdisjoint(condition.name for condition in ct.conditions())
    mixed = replace(panel, subjects=[panel.subjects[0], replace(panel.subjects[1], modality="CT")])
    assert [outcome.scan_id for outcome in mixed.outcomes(NOISE)] == [panel.subjects[0].row.scan_id]


def test_conditions_are_kept_and_a_stopped_panel_goes_on(
    predictor: Predictor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, BLUR, NOISE)
    outcomes = Panel.outcomes

    def stop_at_noise(panel: Panel, condition: Condition) -> object:
        if condition == NOISE:
            raise KeyboardInterrupt
        return outcomes(panel, condition)

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(Panel, "outcomes", stop_at_noise)
        score_robustness(predictor, store, "test", tmp_path)
    folder = tmp_path / "robustness"
    assert {path.name for path in folder.iterdir()} == {"panel.json", CLEAN.file, BLUR.file}
    before = (folder / BLUR.file).stat().st_mtime_ns
    assert score_robustness(predictor, store, "test", tmp_path) == 3
    assert (folder / NOISE.file).is_file()
    assert (folder / BLUR.file).stat().st_mtime_ns == before


def test_two_runs_write_the_same_bytes(predictor: Predictor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, NOISE)
    for name in "ab":
        score_robustness(predictor, store, "test", tmp_path / name)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name / "robustness").iterdir()} for name in "ab")
    assert one == two


def test_other_scans_are_scored_anew(predictor: Predictor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, BLUR)
    score_robustness(predictor, store, "test", tmp_path, scans=2)
    assert len(json.loads((tmp_path / "robustness" / BLUR.file).read_text())["outcomes"]) == 2
    score_robustness(predictor, store, "test", tmp_path)
    assert len(json.loads((tmp_path / "robustness" / BLUR.file).read_text())["outcomes"]) == 3


def test_the_time_it_takes_is_said_before_it_starts(
    predictor: Predictor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    few(monkeypatch, BLUR)
    with caplog.at_level(logging.INFO):
        score_robustness(predictor, store, "test", tmp_path)
    assert "3 scans under 2 conditions, about" in caplog.text


def test_an_empty_split_is_refused(predictor: Predictor, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no_rows"):
        score_robustness(predictor, store, "val", tmp_path)


def rows_of(*patients: str) -> list[ManifestRow]:
    return [ManifestRow(f"s{number}", patient, "a.nii") for number, patient in enumerate(patients)]


def test_scans_are_drawn_by_whole_patients() -> None:
    rows = rows_of("a", "b", "a", "c", "c", "d")
    for seed in range(10):
        found = drawn(rows, 4, seed=seed)
        patients = {row.patient for row in found}
        assert 3 <= len(found) <= 4
        assert found == [row for row in rows if row.patient in patients]
        assert found == drawn(rows, 4, seed=seed)
    assert len({tuple(drawn(rows, 3, seed=seed)) for seed in range(10)}) > 1


def test_a_patient_with_more_scans_than_asked_for_is_drawn_whole() -> None:
    assert len(drawn(rows_of("a", "a", "a", "b", "b", "b"), 1, seed=0)) == 3


def test_no_scans_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        drawn(rows_of("a", "b"), 0, seed=0)
