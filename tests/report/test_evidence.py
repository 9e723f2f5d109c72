import numpy as np
import pytest

from medssl.report.cases import read_results
from medssl.report.evidence import gather


def evidence(builder):
    return gather(read_results(builder.finish()))


def test_a_patient_counts_by_the_highest_scan(builder):
    builder.add("a", score=0.2, label=1, patient="p")
    builder.add("b", score=0.9, label=0, patient="p")
    found = evidence(builder).units["patient"]
    assert (found.labels.tolist(), found.scores.tolist()) == ([1], [0.9])


def test_a_patient_whose_other_scan_is_unknown_is_left_out(builder):
    builder.add("a", score=0.2, label=0, patient="p")
    builder.add("b", score=0.9, label=None, patient="p")
    found = evidence(builder)
    assert len(found.units["patient"].labels) == 0 and len(found.units["scan"].labels) == 1


def test_a_lesion_on_a_rejected_scan_makes_no_negative_patient(builder):
    builder.add("a", score=0.2, label=0, patient="bad")
    builder.reject("bad", "missing_slice", label=1)
    assert evidence(builder).units["patient"].labels.tolist() == [1]


def test_slices_take_their_answer_from_the_true_mask(builder):
    builder.add("a", score=0.9, label=1, patient="p")
    found = evidence(builder).units["slice"]
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 0]
    assert np.all(found.scores[found.labels == 1] == 0.9)


def test_an_image_of_one_slice_without_a_mask_takes_its_label(builder):
    builder.add("a", score=0.9, label=1, maps=False, shape=(24, 20, 1), slice_scores=[0.9])
    assert evidence(builder).units["slice"].labels.tolist() == [1]


def test_a_volume_without_a_mask_has_no_slice_answers_when_it_has_a_lesion(builder):
    builder.add("a", score=0.9, label=1, maps=False)
    assert len(evidence(builder).units["slice"].labels) == 0


def test_a_model_without_slice_scores_has_no_slices(builder):
    builder.add("a", score=0.9, label=1, slice_scores=[0.9])
    assert len(evidence(builder).units["slice"].labels) == 0


def test_the_true_mask_answers_where_no_label_is_given(builder):
    builder.add("a", score=0.9, label=1)
    builder.truth[0]["label"] = ""
    assert evidence(builder).scans[0].label == 1


def test_a_label_that_contradicts_the_mask_is_told(builder):
    builder.add("a", score=0.9, label=1)
    builder.truth[0]["label"] = 0
    assert "contradicts" in evidence(builder).scans[0].problem


def test_a_score_that_is_no_number_is_counted(builder):
    builder.add("a", score=float("nan"), label=1)
    builder.add("b", score=0.3, label=0)
    found = evidence(builder).units["scan"]
    assert (len(found.labels), found.excluded) == (1, 1)


def test_a_hit_is_marked_and_outlined(builder):
    builder.add("a", score=0.9, label=1)
    scan = evidence(builder).scans[0]
    assert scan.marks.hits == pytest.approx((0.9,))
    assert scan.overlap.dice == 1
