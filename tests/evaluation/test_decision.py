import numpy as np
import pytest

from medssl.errors import UsageError
from medssl.evaluation.decision import decision_curve


@pytest.fixture
def calibrated(units):
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 1, 400)
    return units((generator.uniform(0, 1, 400) < scores).astype(int), scores)


def test_net_benefit_is_true_positives_less_weighted_false_ones(units):
    found = decision_curve(units([1, 1, 0, 0, 0], [0.9, 0.3, 0.6, 0.1, 0.2]), thresholds=[0.25, 0.5])
    assert found.model == pytest.approx((2 / 5 - 1 / 5 / 3, 1 / 5 - 1 / 5))
    assert found.treat_all == pytest.approx((2 / 5 - 3 / 5 / 3, 2 / 5 - 3 / 5))


def test_calibrated_scores_are_worth_more_than_treating_all_or_none(calibrated):
    found = decision_curve(calibrated, thresholds=[0.3, 0.5, 0.7])
    assert all(model > max(0, everybody) for model, everybody in zip(found.model, found.treat_all, strict=True))
    assert all(low < value < high for value, (low, high) in zip(found.model, found.ci95, strict=True))


def test_acting_on_everybody_is_what_a_score_of_1_for_all_gives(units):
    found = decision_curve(units([1, 0, 0], [1.0, 1.0, 1.0]))
    assert found.model == pytest.approx(found.treat_all)


def test_few_patients_have_a_curve_without_interval(units):
    found = decision_curve(units([1, 0] * 4, [0.9, 0.1, 0.8, 0.6] * 2))
    assert found.model and found.ci95 == () and "8 patients would be too narrow" in found.note


def test_one_class_has_no_curve(units):
    found = decision_curve(units([1, 1], [0.9, 0.1]))
    assert found.model == () and found.note == "cannot be measured: no negative scan"


def test_scores_beyond_1_are_no_probabilities(units):
    assert "no probabilities" in decision_curve(units([1, 0], [3.0, 0.1])).note


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_a_threshold_must_be_a_probability(calibrated, threshold):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        decision_curve(calibrated, thresholds=[threshold])
