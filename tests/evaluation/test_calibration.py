import numpy as np
import pytest

from medssl.evaluation.calibration import (
    assess,
    calibration_errors,
    fit_class_temperature,
    fit_temperature,
    reliability,
    tempered,
    tempered_classes,
)


def test_bins_are_closed_on_the_right():
    table = reliability([1, 0], [0.1, 0.2])
    assert [one.n for one in table[:3]] == [1, 1, 0]
    assert table[2].observed is None


def test_perfect_probabilities_have_no_error():
    assert calibration_errors([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0]) == (0, 0)


def test_an_expected_error_has_no_interval_because_its_bootstrap_is_biased_as_it_is(units):
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 1, 60)
    found = assess(units((generator.uniform(0, 1, 60) < scores).astype(int), scores))
    assert found["ece"].value > 0 and found["ece"].ci95 is None and "biased upwards" in found["ece"].note
    assert found["brier"].ci95[0] < found["brier"].value < found["brier"].ci95[1]


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


def logistic(logits):
    return 1 / (1 + np.exp(-np.asarray(logits)))


def overconfident(factor, n=4000):
    """Labels drawn from probabilities, and scores whose logits are larger by a factor."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, n)
    return (generator.random(n) < logistic(logits)).astype(int), logistic(factor * logits)


def test_the_temperature_undoes_what_made_scores_too_sure():
    found = fit_temperature(*overconfident(3.0))
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.loss_after < found.loss_before


def test_no_other_temperature_has_a_lower_cross_entropy():
    labels, scores = overconfident(2.0, n=200)
    found = fit_temperature(labels, scores)

    def loss(temperature):
        return -np.mean([np.log(p if label else 1 - p) for label, p in zip(labels, tempered(scores, temperature), strict=True)])

    assert found.loss_after == pytest.approx(loss(found.temperature))
    assert found.loss_after < min(loss(found.temperature * factor) for factor in (0.9, 1.1))


def overconfident_classes(factor, n):
    """Classes drawn from probabilities, and probabilities whose logits are larger by a factor."""
    generator = np.random.default_rng(0)
    true = generator.dirichlet((1, 1, 1), n).T
    classes = (generator.random(n) > true.cumsum(axis=0)).sum(axis=0)
    return classes, tempered_classes(true, 1 / factor)


def test_the_temperature_of_classes_has_the_least_cross_entropy_of_classes():
    classes, probabilities = overconfident_classes(2.0, n=300)
    found = fit_class_temperature(classes, probabilities, positive=[1, 2])

    def loss(temperature):
        logits = np.log(probabilities) / temperature
        return np.mean([np.log(np.exp(column).sum()) - column[one] for one, column in zip(classes, logits.T, strict=True)])

    assert found.temperature == pytest.approx(2.0, rel=0.2)
    assert (found.n, found.n_positive) == (300, (classes > 0).sum())
    assert found.loss_before == pytest.approx(loss(1.0), abs=1e-4)
    assert found.loss_after == pytest.approx(loss(found.temperature), abs=1e-4)
    assert found.loss_after < min(loss(found.temperature * factor) for factor in (0.9, 1.1))


def test_the_temperature_of_two_classes_is_that_of_the_score_of_one():
    labels, scores = overconfident(2.0, n=200)
    both = fit_class_temperature(labels, [1 - scores, scores], positive=[1])
    assert both.temperature == pytest.approx(fit_temperature(labels, scores).temperature, rel=1e-4)


def test_classes_at_a_temperature_still_sum_to_1_and_are_the_softmax_of_divided_logits():
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [-1.0, 3.0]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=0)
    divided = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=0)
    np.testing.assert_allclose(tempered_classes(softmax, 3.0), divided)
    np.testing.assert_array_equal(tempered_classes(softmax, 1.0), softmax)


def test_a_temperature_divides_the_logit_and_keeps_the_order():
    np.testing.assert_allclose(tempered(logistic([-4.0, 0.0, 2.0]), 2.0), logistic([-2.0, 0.0, 1.0]))
    np.testing.assert_array_equal(tempered([0.0, 1.0], 3.0), [0.0, 1.0])
    np.testing.assert_array_equal(tempered([0.123456789], 1.0), [0.123456789])


@pytest.mark.parametrize(
    ("labels", "scores", "why"),
    [
        ([1, 0, 0, 0, 0, 0, 0], np.linspace(0, 1, 7), "1 positives and 6 negatives"),
        ([0] * 6 + [1] * 6, np.linspace(0.01, 0.99, 12), "separate the classes"),
        ([1] * 6 + [0] * 6, np.linspace(0.01, 0.99, 12), "say too little"),
    ],
)
def test_where_no_temperature_can_be_fitted_scores_stay_and_the_reason_is_said(labels, scores, why):
    found = fit_temperature(labels, scores)
    assert found.temperature == 1
    assert why in found.note
