import numpy as np
import pytest
from scipy.stats import t as scipy_t

from medssl.evaluation.intervals import (
    agresti_coull,
    clopper_pearson,
    clustered_proportion,
    jeffreys,
    patient_weights,
    proportion,
    ratio_error,
    student_interval,
    wilson,
)


def test_nothing_measured_is_null_and_says_what_is_missing():
    record = proportion(0, 0, empty="no negative scan").to_json()
    assert (record["value"], record["ci95"], record["k"], record["n"]) == (None, [None, None], 0, 0)
    assert record["note"] == "cannot be measured: no negative scan"


def test_a_perfect_rate_keeps_a_wide_interval():
    metric = clustered_proportion([30] * 12, [30] * 12, empty="")
    assert metric.value == 1
    assert metric.ci95 == pytest.approx(wilson(12, 12))
    assert "no spread" in metric.method


@pytest.mark.parametrize("patients", [1, 3, 9])
def test_a_rate_of_few_patients_with_many_units_has_no_interval(patients):
    metric = clustered_proportion([96, 95, 97, 90, 80, 99, 95, 96, 97][:patients], [100] * patients, empty="")
    assert metric.ci95 is None and metric.method == "none" and "wilson95" not in metric.beside
    assert metric.note.startswith(f"an interval drawn from {patients} patient") and metric.note.endswith("too narrow, none is given")


def test_a_rate_of_few_patients_with_a_unit_each_has_wilsons_interval():
    metric = clustered_proportion([1, 0, 1, 1], [1, 1, 1, 1], empty="")
    assert (metric.ci95, metric.method) == (wilson(3, 4), "Wilson")


def test_ten_patients_have_an_interval():
    metric = clustered_proportion([1, 3, 0, 2, 1, 2, 2, 1, 0, 1], [2, 3, 2, 2, 2, 2, 3, 2, 1, 2], empty="").to_json()
    assert metric["ci95"][0] < metric["value"] < metric["ci95"][1]
    assert metric["wilson95"] == pytest.approx(list(wilson(13, 21)))


def test_students_interval_of_patients_with_a_value_each_is_the_one_of_scipy():
    values = np.array([0.9, 0.7, 0.8, 0.4])
    expected = scipy_t.interval(0.95, 3, loc=values.mean(), scale=values.std(ddof=1) / 2)
    assert student_interval(values, np.ones(4), bounds=(-9.0, 9.0)) == pytest.approx(expected)
    assert student_interval(values, np.ones(4), bounds=(0.0, 1.0)) == pytest.approx((expected[0], min(1.0, expected[1])))


def test_students_interval_needs_two_patients_that_differ():
    assert student_interval([0.9], [1], bounds=(0.0, 1.0)) is None
    assert student_interval([0.9, 0.9], [1, 1], bounds=(0.0, 1.0)) is None


def test_of_no_trial_nothing_is_known():
    assert wilson(0, 0) == clopper_pearson(0, 0) == agresti_coull(0, 0) == (0, 1)


def test_agresti_coull_is_held_within_0_and_1():
    assert agresti_coull(0, 3)[0] == 0 and agresti_coull(3, 3)[1] == 1


def test_jeffreys_never_claims_certainty():
    assert jeffreys(0, 5)[0] > 0 and jeffreys(5, 5)[1] < 1


def test_the_error_of_a_ratio_of_one_patient_is_not_known():
    assert np.isnan(ratio_error([1], [2]))


def test_the_error_of_a_ratio_is_that_of_a_mean_when_all_patients_have_one_unit():
    hits = np.array([1, 0, 1, 1, 0, 1])
    assert ratio_error(hits, np.ones(6)) == pytest.approx(hits.std(ddof=1) / np.sqrt(6))


def test_every_draw_is_of_as_many_patients_as_there_are():
    blocks = list(patient_weights(7, columns=400_000, draws=50))
    assert len(blocks) > 1 and sum(len(block) for block in blocks) == 50
    assert all((block.sum(axis=1) == 7).all() for block in blocks)


def test_a_patient_is_drawn_once_on_average_with_the_variance_of_a_draw_with_replacement():
    drawn = np.concatenate(list(patient_weights(10, draws=20_000)))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(10), abs=0.05)
    assert drawn.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.05)
