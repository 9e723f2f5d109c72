import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from medssl.evaluation.lesions import (
    Marks,
    assess,
    components,
    counted,
    false_positives_per_scan,
    froc,
    mark,
    mark_centres,
    match,
    overlaps,
)


@pytest.fixture
def masks():
    """The truth and the prediction of the lesionwise block."""
    truth, prediction = np.zeros((12, 12, 12)), np.zeros((12, 12, 12))
    truth[1:4, 1:4, 1:4] = truth[8:10, 8:10, 8:10] = truth[1:3, 8:11, 1:3] = 1
    prediction[2:5, 1:4, 1:4] = prediction[8, 8, 8] = prediction[5:7, 5:7, 10:12] = 1
    return prediction, truth


def scans(images):
    return [Marks(str(i), tuple(image["tp"]), tuple(image["fp"]), (), image["n"]) for i, image in enumerate(images)]


def test_the_overlap_of_lesions_is_their_iou(masks):
    prediction, truth = (components(mask) for mask in masks)
    found = overlaps(prediction[0], truth[0], n_marks=prediction[1], n_lesions=truth[1])
    assert sorted(found[found > 0]) == pytest.approx([0.125, 0.5])


@pytest.mark.parametrize(("min_iou", "rule"), [(1e-9, "any_overlap"), (0.1, "iou_0.1"), (0.5, "iou_0.5")])
def test_matching_agrees_with_its_reference(stats, masks, min_iou, rule):
    expected = stats["lesionwise"]["matching"][rule]
    found = mark(*masks, patient="a", min_iou=min_iou)
    assert (len(found.hits), found.n_lesions - len(found.hits), len(found.alarms)) == (expected["tp"], expected["fn"], expected["fp"])
    metrics = assess([found])
    assert [metrics[name].value for name in ("sensitivity", "ppv", "f1")] == pytest.approx([expected[n] for n in ("sens", "ppv", "f1")])


@pytest.mark.parametrize(
    ("min_voxels", "min_share", "expected"), [(1, 0, [1, 1, 1]), (10, 0, [1, 0, 1]), (1, 0.5, [1, 0, 0]), (101, 0, [0, 0, 0])]
)
def test_components_count_from_a_size_and_a_share_of_the_largest(min_voxels, min_share, expected):
    assert counted(np.array([100, 2, 49]), min_voxels=min_voxels, min_share=min_share).tolist() == [bool(one) for one in expected]


def test_of_no_components_none_counts():
    assert len(counted(np.zeros(0, int), min_voxels=1, min_share=0.5)) == 0


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4))
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    assert components(mask)[1] == 1


def test_matching_finds_as_many_lesions_as_the_best_assignment():
    generator = np.random.default_rng(0)
    for _ in range(50):
        near = generator.random((6, 5)) < 0.3
        rows, columns = linear_sum_assignment(near, maximize=True)
        hits, duplicates = match(near, generator.random(6))
        assert len(hits) == near[rows, columns].sum()
        assert len(hits) + len(duplicates) == near.any(axis=1).sum()


def test_a_second_mark_on_a_found_lesion_is_neither_right_nor_wrong():
    truth, prediction, probability = np.zeros((8, 3, 3)), np.zeros((8, 3, 3)), np.zeros((8, 3, 3))
    truth[:] = 1
    prediction[:3] = prediction[5:] = 1
    probability[:3], probability[5:] = 0.6, 0.9
    found = mark(prediction, truth, patient="a", probability=probability)
    assert (found.hits, found.alarms, found.duplicates) == ((0.9,), (), (0.6,))


def test_froc_agrees_with_the_step_rule(stats):
    block = stats["froc"]
    found = froc(scans(block["images"]))
    for rate, value in block["sens_step"].items():
        assert found["sensitivity_at"][rate] == pytest.approx(value)
    assert found["cpm"]["value"] == pytest.approx(block["cpm_step"])
    assert found["cpm"]["ci95"] == [None, None] and "would be too narrow" in found["cpm"]["note"]


def many(patients):
    """Patients with two lesions each, of which chance finds some, and a healthy one to each."""
    generator = np.random.default_rng(0)
    ill = [Marks(f"p{n}", tuple(generator.uniform(0, 1, n % 3)), tuple(generator.uniform(0, 0.7, n % 2)), (), 2) for n in range(patients)]
    return [*ill, *(Marks(f"q{n}", (), tuple(generator.uniform(0, 0.5, n % 2)), (), 0) for n in range(patients))]


def test_every_rate_of_the_froc_has_an_interval_where_patients_are_enough():
    found = froc(many(12))
    for rate, (low, high) in found["sensitivity_at_ci95"].items():
        assert low <= found["sensitivity_at"][rate] <= high and high - low > 0.05
    low, high = found["cpm"]["ci95"]
    assert low < found["cpm"]["value"] < high
    assert set(map(tuple, froc(many(9))["sensitivity_at_ci95"].values())) == {(None, None)}


def test_the_froc_says_where_its_curve_ends_and_to_which_rates_it_is_carried():
    found = froc(many(12))
    assert found["ends_at"] == max(found["fp_per_scan"]) == 0.5 and found["carried"] == [1, 2, 4, 8]
    assert {found["sensitivity_at"][f"{rate:g}"] for rate in found["carried"]} == {found["sensitivity"][-1]}
    assert (found["n_scans"], found["n_scans_without_lesion"]) == (24, 12)


def test_false_positives_of_few_patients_have_no_interval():
    found = false_positives_per_scan(many(3))
    assert found.ci95 is None and "6 patients would be too narrow" in found.note
    assert false_positives_per_scan(many(12)).ci95 is not None


def test_a_scan_without_marks_and_lesions_only_adds_to_the_scans():
    assert froc([Marks("a", (0.9,), (), (), 1), Marks("b", (), (), (), 0)])["cpm"]["value"] == 1


def test_marks_of_one_score_enter_together():
    one_scan = [Marks("a", (0.9, 0.5), (0.5,), (), 2)]
    assert froc(one_scan)["sensitivity_at"]["0.5"] == 0.5
    assert froc(one_scan)["sensitivity_at"]["1"] == 1


def test_marks_on_a_scan_without_lesion_are_false_positives_of_all_scans():
    found = froc([Marks("a", (0.9,), (), (), 1), Marks("b", (), (0.95,), (), 0), Marks("c", (), (), (), 0), Marks("d", (), (), (), 0)])
    assert found["fp_per_scan"] == [0.25, 0.25]
    assert (found["sensitivity_at"]["0.125"], found["sensitivity_at"]["0.25"]) == (0, 1)


def test_a_voxel_whose_probability_is_no_number_scores_nothing():
    mask, probability = np.zeros((4, 4, 4)), np.full((4, 4, 4), np.nan)
    mask[0, 0, 0] = mask[3, 3, 2:] = 1
    probability[3, 3, 2] = 0.7
    found = mark(mask, mask, patient="a", probability=probability)
    assert found.hits == (0.7, 0.0)


def test_lesions_that_got_no_mark_are_missed():
    found = froc([Marks("a", (), (), (), 2)])
    assert found["cpm"]["value"] == 0 and found["fp_per_scan"] == []


def test_without_a_true_lesion_there_is_no_sensitivity():
    only_alarms = [Marks("a", (), (0.4,), (), 0)]
    assert froc(only_alarms)["cpm"]["value"] is None
    assert assess(only_alarms)["sensitivity"].note == "cannot be measured: no true lesion"
    assert assess(only_alarms)["precision"].value == 0
    assert false_positives_per_scan(only_alarms).value == 1


def test_lesions_have_no_specificity():
    found = assess([Marks("a", (0.9,), (), (), 1)])
    assert all(found[name].value is None for name in ("specificity", "npv", "accuracy", "auroc"))


def test_no_scan_at_all_gives_no_number():
    assert {metric.value for metric in assess([]).values()} == {None}
    assert false_positives_per_scan([]).value is None


def test_a_place_finds_the_lesion_that_it_lies_in(masks):
    truth = masks[1]
    found = mark_centres([(2.2, 2, 2), (1, 1, 1), (8.4, 8, 9), (6, 6, 6), (-3, 0, 0)], [0.9, 0.8, 0.7, 0.6, 0.5], truth, patient="a")
    assert (found.hits, found.alarms, found.duplicates, found.n_lesions) == ((0.9, 0.7), (0.6, 0.5), (0.8,), 3)


def test_a_place_without_a_score_or_without_numbers_counts_as_the_least_sure(masks):
    none = float("nan")
    found = mark_centres([(2, 2, 2), (6, 6, 6), (none, 0, 0)], [none, none, 0.5], masks[1], patient="a")
    assert (found.hits, found.alarms) == ((0.0,), (0.5, 0.0))
    assert np.isfinite(froc([found])["thresholds"]).all()


def test_no_place_misses_every_lesion(masks):
    assert mark_centres([], [], masks[1], patient="a") == Marks("a", (), (), (), 3)
