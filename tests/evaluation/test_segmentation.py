import numpy as np
import pytest

from medssl.evaluation.segmentation import compare, dice, summarise, surface_dice, surface_distances

SPACING = (2.5, 0.9, 0.7)


def ellipsoid(centre, radii):
    grid = np.indices((14, 26, 26)).reshape(3, -1).T
    return ((((grid - centre) / radii) ** 2).sum(axis=1) <= 1).reshape(14, 26, 26)


@pytest.fixture
def masks():
    """The prediction and the truth of the surface block."""
    prediction = ellipsoid((7, 14, 12), (3, 7, 7)) | ellipsoid((11, 4, 21), (1, 1.5, 1.5))
    return prediction, ellipsoid((7, 13, 13), (4, 7, 6))


def test_dice_and_hd95_agree_with_monai(stats, masks):
    found = compare(*masks, spacing_mm=SPACING)
    assert found.dice == pytest.approx(stats["surface"]["dice"])
    assert found.hd95_mm == pytest.approx(stats["surface"]["monai"]["hd95"])


def test_surface_dice_and_the_largest_distance_agree_with_their_references(stats, masks):
    there, back = surface_distances(*masks, spacing_mm=SPACING)
    assert surface_dice(there, back, tolerance_mm=1) == pytest.approx(stats["surface"]["monai"]["nsd_1mm"])
    assert surface_dice(there, back, tolerance_mm=2) == pytest.approx(stats["surface"]["metricsreloaded"]["nsd_2mm"])
    assert max(there.max(), back.max()) == pytest.approx(stats["surface"]["metricsreloaded"]["hd"])


def test_two_empty_masks_have_no_numbers():
    empty = np.zeros((4, 4, 4))
    found = compare(empty, empty, spacing_mm=(1, 1, 1))
    assert (found.status, found.dice, found.hd95_mm) == ("both_empty", None, None)
    assert dice(empty, empty) is None


@pytest.mark.parametrize(("prediction", "truth", "status"), [(0, 1, "prediction_empty"), (1, 0, "truth_empty")])
def test_one_empty_mask_is_the_worst_value(prediction, truth, status):
    found = compare(np.full((4, 4, 4), prediction), np.full((4, 4, 4), truth), spacing_mm=(1, 1, 2))
    assert (found.status, found.dice, found.surface_dice) == (status, 0, 0)
    assert found.hd95_mm == pytest.approx((9 + 9 + 36) ** 0.5)


def test_volumes_are_in_millilitres():
    prediction, truth = np.ones((10, 10, 10)), np.zeros((10, 10, 10))
    truth[:5] = 1
    found = compare(prediction, truth, spacing_mm=(1, 1, 1))
    assert (found.predicted_ml, found.true_ml, found.volume_error_ml) == pytest.approx((1, 0.5, 0.5))


def test_an_image_of_one_slice_is_compared_in_its_plane():
    prediction, truth = np.zeros((9, 9, 1)), np.zeros((9, 9, 1))
    prediction[2:7, 2:7], truth[2:7, 3:8] = 1, 1
    assert compare(prediction, truth, spacing_mm=(1, 1, 1)).hd95_mm == 1


def test_a_summary_draws_patients():
    found = summarise(np.repeat(np.linspace(0.2, 0.9, 10), 2), np.repeat(range(10), 2))
    assert (found["mean"], found["median"], found["n_patients"]) == pytest.approx((0.55, 0.55, 10))
    assert found["ci95"][0] < 0.45 and found["ci95"][1] > 0.65 and "bootstrap" in found["method"]


def test_a_mean_of_few_patients_has_students_interval_and_says_so():
    found = summarise([0.9, 0.92, 0.91], ["a", "b", "c"])
    assert found["ci95"] == pytest.approx([0.91 - 4.302653 * 0.01 / 3**0.5, 0.91 + 4.302653 * 0.01 / 3**0.5])
    assert found["method"] == "Student's t over patients" and found["note"] == "of 3 patients, by Student's t"


def test_a_mean_of_few_patients_stays_within_what_it_can_be():
    assert summarise([0.9, 0.2], ["a", "b"])["ci95"] == [0, 1]
    assert summarise([3.0, 40.0], ["a", "b"], bounds=(0.0, np.inf))["ci95"][0] == 0
    assert summarise([3.0, 40.0], ["a", "b"], bounds=(0.0, np.inf))["ci95"][1] > 40


def test_a_summary_of_one_patient_has_no_interval():
    found = summarise([0.9, 0.8], ["a", "a"])
    assert found["ci95"] == [None, None] and found["note"].startswith("an interval drawn from 1 patient would")


def test_a_summary_of_nothing_is_null():
    assert summarise([], [])["mean"] is None
