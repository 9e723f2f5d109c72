"""Metrics of networks that tell classes apart."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.data.case import Case, load_cases
from medssl.data.classes import Classes, scan_label
from medssl.data.manifest import ManifestRow
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.evaluation.calibration import fit_class_temperature, fit_temperature, tempered_classes
from medssl.evaluation.segmentation import dice
from medssl.models.architecture import Network
from medssl.models.outputs import Outputs
from medssl.training.validation.points import Metric, Scored, Voxels, calibration, measure, operating_points
from medssl.training.validation.selection import Selection
from tests.training.finetuning.classes_store import write_classes

NAMES = ("normal", "benign", "malignant")
BREAST = Classes(NAMES)
OUTPUTS = Outputs(NAMES, positive=BREAST.positives)
TUMOUR = Classes(("oedema", "core"), mask_values=(2, 4))


def picture(label: str, said: Sequence[float], classes: Classes = BREAST, outputs: Outputs = OUTPUTS) -> Scored:
    """A scan of one slice without a mask, with the probabilities of its classes."""
    row = ManifestRow("s", "p", "x", label=label)
    case = Case(row, None, (1, 2, 2, 1), scan_label(row, classes.positives), False, np.array([], np.intp), classes=classes)  # type: ignore[arg-type]
    channels = np.array(said, np.float32)[:, None]
    slices = channels[[classes.names.index(name) for name in classes.positives]].sum(axis=0) if classes.names else channels[0]
    return Scored(case, None, slices, channels, outputs=outputs)


def said_of(label: str, right: float) -> list[float]:
    """Probabilities of the classes of which that of the label is `right`."""
    return [right if name == label else (1 - right) / 2 for name in NAMES]


def outlined(folder: Path) -> tuple[Case, NDArray[np.uint8]]:
    """A scan with two classes in its mask, and their numbers."""
    store = Store(write_classes(folder / "store", [""], values=[(2, 4)]))
    (case,) = load_cases(store, store.manifest.split("val"), classes=TUMOUR)
    numbers = case.class_mask()
    assert numbers is not None
    return case, numbers[0]


def said_by_voxel(case: Case, numbers: NDArray[np.integer], asked: Metric) -> Scored:
    """The scan, of which each voxel is called to be of a class with 0.8."""
    said = np.moveaxis(np.where(np.eye(3)[numbers] > 0, 0.8, 0.1), -1, 0).astype(np.float32)
    outputs = Outputs(TUMOUR.names, TUMOUR.names, background=True)
    return Scored(case, Voxels.of(said, case, outputs, asked), said[0, 0, 0], said[0, 0, :1], outputs=outputs)


def network(task: str, outputs: Outputs) -> Network:
    return cast(Network, SimpleNamespace(task=task, spatial_dims=2, bags=False, outputs=outputs))


def test_calling_nothing_loses_where_healthy_pictures_alone_are_known_slice_by_slice() -> None:
    good = [picture(label, said_of(label, 0.8)) for label in NAMES * 6]
    nothing = [picture(label, said_of("normal", 0.95)) for label in NAMES * 6]
    assert measure(good, "loss") == pytest.approx(-np.log(0.8))
    assert measure(nothing, "loss") == pytest.approx(-np.mean(np.log([0.95, 0.025, 0.025])))


def test_the_loss_of_lesion_against_none_counts_scans_with_lesion_as_well() -> None:
    scored = [picture(label, [0.05], Classes(), Outputs()) for label in ("normal", "malignant")]
    assert measure(scored, "loss") == pytest.approx(-np.mean(np.log([0.95, 0.05])))


def test_the_loss_of_several_labels_is_the_mean_over_them() -> None:
    findings = Classes(("nodule", "effusion"), multi_label=True)
    outputs = Outputs(findings.names, findings.names, exclusive=False)
    scored = [picture(label, [0.9, 0.2], findings, outputs) for label in ("nodule", "nodule;effusion")]
    assert measure(scored, "loss") == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.9, 0.2])))


def test_a_volume_with_many_slices_counts_once_in_the_loss_of_its_slices(tmp_path: Path) -> None:
    store = Store(write_classes(tmp_path / "store", ["malignant"], values=[(1,)]))
    (volume,) = load_cases(store, store.manifest.split("val"), classes=BREAST)  # lesion in the first two of four slices
    channels = np.array([said_of("malignant", 0.8), said_of("malignant", 0.8), said_of("normal", 0.6), said_of("normal", 0.6)]).T
    scored = [Scored(volume, None, channels[1:].sum(axis=0), channels, outputs=OUTPUTS), picture("benign", said_of("benign", 0.9))]
    assert measure(scored, "loss") == pytest.approx(-np.mean([np.log([0.8, 0.6]).mean(), np.log(0.9)]))


def test_the_macro_area_is_the_mean_of_each_class_against_the_rest() -> None:
    scored = [picture(label, np.random.default_rng(number).dirichlet((1, 1, 1))) for number, label in enumerate(NAMES * 4)]
    areas = []
    for index, name in enumerate(NAMES):
        inside, outside = (
            [float(one.channels[index, 0]) for one in scored if (one.case.row.label == name) is wanted] for wanted in (True, False)
        )
        areas.append(np.mean([(first > second) + (first == second) / 2 for first in inside for second in outside]))
    assert measure(scored, "macro_auroc") == pytest.approx(np.mean(areas))


def test_the_macro_area_of_slices_takes_the_classes_of_the_slice_with_the_highest_score() -> None:
    volumes = [picture(label, said_of(label, 0.6)) for label in ("benign", "malignant")]
    told = [replace(one, channels=np.hstack([one.channels, np.array([[0.9], [0.0], [0.1]], np.float32)])) for one in volumes]
    assert measure(told, "macro_auroc") == 1


def test_the_loss_of_voxels_sees_which_class_they_are_of(tmp_path: Path) -> None:
    case, truth = outlined(tmp_path)
    right, exchanged = (measure([said_by_voxel(case, numbers, "loss")], "loss") for numbers in (truth, np.array([0, 2, 1])[truth]))
    assert right == pytest.approx(-np.log(0.8), rel=1e-5)
    assert exchanged > right  # type: ignore[operator]


def test_dice_by_class_counts_what_is_called_of_another_class_as_missed(tmp_path: Path) -> None:
    case, truth = outlined(tmp_path)
    called = np.where(truth > 0, 1, 0)
    expected = np.mean([dice(called == number, truth == number) for number in (1, 2)])  # type: ignore[arg-type]
    assert measure([said_by_voxel(case, called, "class_dice")], "class_dice") == pytest.approx(expected)
    assert measure([said_by_voxel(case, truth, "class_dice")], "class_dice") == measure([said_by_voxel(case, called, "dice")], "dice") == 1


def test_scans_of_each_class_are_looked_at_in_turn() -> None:
    cases = [picture(label, (1, 0, 0)).case for label in ["benign"] * 8 + ["normal", "malignant"]]
    chosen = Selection(metric="macro_auroc", scans=3).looked_at(cases, network("classification", OUTPUTS), seed=0)
    assert sorted(case.row.label for case in chosen) == sorted(NAMES)


def test_dice_by_class_is_looked_at_where_a_segmenter_has_classes(tmp_path: Path) -> None:
    case, _ = outlined(tmp_path)
    outputs = Outputs(TUMOUR.names, TUMOUR.names, background=True)
    assert Selection(metric="class_dice").looked_at([case], network("segmentation", outputs), seed=0) == [case]


@pytest.mark.parametrize(
    ("metric", "labels", "outputs", "needs"),
    [
        ("macro_auroc", ["benign"], OUTPUTS, "scans of two of them"),
        ("macro_auroc", ["benign", "normal"], Outputs(), "a classifier of named classes"),
        ("class_dice", ["benign", "normal"], OUTPUTS, "a segmenter of named classes"),
    ],
)
def test_a_metric_of_classes_that_cannot_be_told_is_refused(metric: Metric, labels: list[str], outputs: Outputs, needs: str) -> None:
    cases = [picture(label, (1, 0, 0)).case for label in labels]
    with pytest.raises(ConfigError, match=needs):
        Selection(metric=metric).looked_at(cases, network("classification", outputs), seed=0)


def unsure() -> list[Scored]:
    """Pictures whose classes are drawn from less sure probabilities than are said of them."""
    generator = np.random.default_rng(0)
    drawn = [generator.dirichlet((1, 1, 1)) for _ in range(60)]
    return [picture(NAMES[generator.choice(3, p=true)], tempered_classes(true, 0.4).tolist()) for true in drawn]


def test_a_temperature_is_fitted_on_the_classes_that_it_divides() -> None:
    scored = unsure()
    classes, said = [NAMES.index(one.case.row.label) for one in scored], np.hstack([one.channels for one in scored])
    found, expected = calibration(scored), fit_class_temperature(classes, said, positive=[1, 2])
    assert found["scan"]["temperature"] == found["slice"]["temperature"] == expected.temperature > 1.5
    assert (found["scan"]["of"], found["scan"]["loss_after"]) == ("classes", expected.loss_after)


def test_thresholds_are_on_the_sum_of_the_calibrated_classes() -> None:
    scored = unsure()
    sums = [tempered_classes(one.channels, 3.0)[1:].sum() for one in scored]
    point = operating_points(scored, rule="youden", temperatures={"scan": 3.0})["scan"]
    assert min(abs(score - float(str(point["threshold"]))) for score in sums) < 1e-12


def test_a_temperature_of_several_labels_is_fitted_on_their_score_and_is_of_each() -> None:
    findings = Classes(("nodule", "effusion"), multi_label=True)
    outputs, generator = Outputs(findings.names, findings.names, exclusive=False), np.random.default_rng(0)
    scored = [picture(label, generator.random(2).tolist(), findings, outputs) for label in ("nodule", "normal", "effusion", "normal") * 10]
    expected = fit_temperature([one.case.label for one in scored], [one.slices.max() for one in scored])
    assert calibration(scored)["scan"]["of"] == "each class"
    assert calibration(scored)["scan"]["loss_before"] == expected.loss_before
