"""Metrics, temperatures and thresholds from validation scans."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.data.dataset import Case, load_cases
from medssl.data.manifest import ManifestRow
from medssl.data.store import Store
from medssl.evaluation.calibration import tempered
from medssl.models.outputs import Outputs
from medssl.training.validation.points import Asked, Scored, Voxels, calibration, measure, operating_points
from medssl.training.validation.voxel_point import by_threshold, voxel_point

Map = NDArray[np.float32]


@pytest.fixture
def maps(store: Path) -> list[tuple[Case, Map]]:
    """All four scans, two of them with lesion, with a map that is right to some degree."""
    generator, cases = np.random.default_rng(0), load_cases(Store(store), Store(store).manifest.rows)
    values = [lesion(case) * 0.5 + generator.random(case.shape[1:]) * 0.6 for case in cases]
    return [(case, np.clip(value, 0.01, 0.99).astype(np.float32)) for case, value in zip(cases, values, strict=True)]


@pytest.fixture
def scored(maps: list[tuple[Case, Map]]) -> list[Scored]:
    return said(maps, "points")


def lesion(case: object) -> NDArray[np.float64]:
    return np.asarray(case.lesion[0], float)  # type: ignore[attr-defined]


def said(maps: list[tuple[Case, Map]], asked: Asked) -> list[Scored]:
    slices = [(case, Voxels.of(values[None], case, Outputs(), asked), values.mean(axis=(0, 1))) for case, values in maps]
    return [Scored(case, voxels, scores, scores[None]) for case, voxels, scores in slices]


def test_dice_is_the_mean_over_scans_with_lesion_of_the_overlap_counted_voxel_by_voxel(maps: list[tuple[Case, Map]]) -> None:
    expected = []
    for case, probability in maps:
        truth, called = set(zip(*np.nonzero(lesion(case)), strict=True)), set(zip(*np.nonzero(probability >= 0.5), strict=True))
        if truth:
            expected.append(2 * len(truth & called) / (len(truth) + len(called)))
    assert measure(said(maps, "dice"), "dice") == pytest.approx(np.mean(expected))


def test_the_area_of_slices_counts_the_pairs_in_the_right_order(scored: list[Scored]) -> None:
    ill = [score for one in scored for k, score in enumerate(one.slices) if lesion(one.case)[..., k].any()]
    well = [score for one in scored for k, score in enumerate(one.slices) if not lesion(one.case)[..., k].any()]
    pairs = [(first > second) + (first == second) / 2 for first in ill for second in well]
    assert measure(scored, "slice_auroc") == pytest.approx(np.mean(pairs))


def test_the_loss_is_the_mean_of_minus_the_logarithm_of_what_is_right(maps: list[tuple[Case, Map]]) -> None:
    right = [np.where(lesion(case) > 0, probability, 1 - probability) for case, probability in maps]
    assert measure(said(maps, "loss"), "loss") == pytest.approx(np.mean([-np.log(one).mean() for one in right]), rel=1e-5)


def test_a_metric_without_its_truth_is_not_measured(scored: list[Scored]) -> None:
    well = [one for one in scored if not lesion(one.case).any()]
    assert measure(well, "dice") is measure(well, "scan_auroc") is measure(well, "slice_auroc") is None


def test_thresholds_are_on_calibrated_scores_and_make_the_same_calls(scored: list[Scored]) -> None:
    plain, cooled = operating_points(scored, rule="youden"), operating_points(scored, rule="youden", temperatures={"slice": 3.0})
    assert cooled["slice"]["threshold"] == pytest.approx(float(tempered(float(str(plain["slice"]["threshold"])), 3.0)))
    assert cooled["slice"]["sensitivity"] == plain["slice"]["sensitivity"]


def healthy(generator: np.random.Generator, count: int) -> list[Scored]:
    """Scans of 30 slices that are known to have no lesion, with random scores."""
    row = ManifestRow("s", "p", "x", label="normal")
    case = Case(row, None, (1, 2, 2, 30), 0, False, np.array([], np.intp))  # type: ignore[arg-type]
    return [Scored(case, None, slices, slices[None]) for slices in generator.beta(2, 5, (count, 30)).astype(np.float32)]


def test_a_threshold_chosen_on_healthy_scans_alone_calls_one_in_twenty_of_further_ones() -> None:
    generator = np.random.default_rng(0)
    point = operating_points(healthy(generator, 400))["scan"]
    called = [one.slices.max() >= float(str(point["threshold"])) for one in healthy(generator, 2000)]
    assert 0.03 <= np.mean(called) <= 0.07
    assert point["rule"] == "95% quantile of negatives: no positive to choose on"
    assert point["n"] == 400


def test_scans_with_lesion_alone_take_threshold_and_temperature_of_slices(scored: list[Scored]) -> None:
    ill = [one for one in scored if lesion(one.case).any()]
    points = operating_points(ill)
    assert points["scan"]["threshold"] == points["slice"]["threshold"]
    assert points["scan"]["rule"] == "that of slices (youden midway): no validation scan without lesion"
    assert calibration(ill)["scan"] == calibration(ill)["slice"]


def test_scans_whose_slices_all_have_a_lesion_keep_their_own_threshold(scored: list[Scored]) -> None:
    ill = next(one for one in scored if lesion(one.case).any())
    case = replace(ill.case, lesion_slices=np.arange(ill.case.shape[3]))
    points = operating_points([replace(ill, case=case)])
    assert points["scan"]["rule"] == "5% quantile of positives: no negative to choose on"
    assert points["scan"]["n"] == 1


def test_the_point_of_voxels_is_that_of_the_maps_of_scans_with_lesion(maps: list[tuple[Case, Map]], scored: list[Scored]) -> None:
    parts = [by_threshold(values, lesion(case) > 0) for case, values in maps if lesion(case).any()]
    expected, found = voxel_point(parts, chosen_on="validation"), operating_points(scored)["voxel"]
    assert expected is not None
    assert found | {"locked_at": ""} == expected | {"locked_at": ""}


@pytest.mark.parametrize(("asked", "kept"), [("dice", ["dice"]), ("loss", ["loss"]), ("slice_auroc", []), ("points", ["parts"])])
def test_of_a_map_no_more_is_kept_than_what_is_asked_for(maps: list[tuple[Case, Map]], asked: Asked, kept: list[str]) -> None:
    case, values = next((case, values) for case, values in maps if lesion(case).any())
    voxels = Voxels.of(values[None], case, Outputs(), asked)
    assert [name for name in ("dice", "loss", "parts") if getattr(voxels, name)] == kept


def test_scans_of_one_slice_have_the_points_and_temperatures_of_scans_for_their_slices() -> None:
    generator, scored = np.random.default_rng(0), []
    for label in ("normal", "benign", "malignant") * 6:
        row = ManifestRow("s", "p", "x", label=label)
        case = Case(row, None, (1, 2, 2, 1), int(label != "normal"), False, np.array([], np.intp))  # type: ignore[arg-type]
        slices = generator.beta(*((2, 3) if label == "normal" else (3, 2)), 1).astype(np.float32)
        scored.append(Scored(case, None, slices, slices[None]))
    fitted, points = calibration(scored), operating_points(scored)
    assert fitted["slice"] == {**fitted["scan"], "unit": "slice"}
    assert fitted["scan"]["n"] == points["slice"]["n"] == 18
    kept = ("threshold", "rule", "n", "n_positive", "sensitivity", "specificity", "evidence_sha256")
    assert [points["slice"][name] for name in kept] == [points["scan"][name] for name in kept]
