import numpy as np
import pytest

from medssl.evaluation.calibration import assess, calibration_errors, reliability


def test_bins_are_closed_on_the_right():
    table = reliability([1, 0], [0.1, 0.2])
    assert [one.n for one in table[:3]] == [1, 1, 0]
    assert table[2].observed is None


def test_perfect_probabilities_have_no_error():
    assert calibration_errors([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0]) == (0, 0)


def test_separated_scores_have_no_slope(units):
    found = assess(units([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]))
    assert found["slope"].value is None and "separate" in found["slope"].note


def test_scores_that_are_all_alike_have_no_slope(units):
    assert assess(units([1, 0, 1], [0.5, 0.5, 0.5]))["slope"].value is None


def test_one_class_has_a_brier_score_but_no_slope(units):
    found = assess(units([1, 1], [0.9, 0.7]))
    assert found["brier"].value == pytest.approx(0.05)
    assert found["slope"].note == "cannot be measured: no negative scan"


def test_nothing_gives_no_number(units):
    assert {metric.value for metric in assess(units([], [])).values()} == {None}


def test_scores_of_exactly_zero_and_one_are_fitted(units):
    found = assess(units([1, 0, 1, 0, 1], [1.0, 0.0, 0.4, 0.6, 0.0]))
    assert np.isfinite(found["slope"].value)
