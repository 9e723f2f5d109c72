import numpy as np
import pytest

from medssl.errors import ConfigError
from medssl.evaluation.operating_point import choose

WHEN = "2026-01-01T00:00:00+00:00"


def test_youden_takes_the_higher_of_two_equal_thresholds():
    point = choose([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], unit="scan", locked_at=WHEN)
    assert point.threshold == 0.9
    assert (point.n, point.n_positive, point.sensitivity, point.specificity) == (4, 2, 0.5, 1.0)


def test_midway_makes_the_same_calls_from_the_middle_of_the_gap():
    labels, scores = [1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]
    point = choose(labels, scores, unit="scan", rule="youden midway", locked_at=WHEN)
    assert point.threshold == pytest.approx(0.5)
    assert (point.rule, point.sensitivity, point.specificity) == ("youden midway", 1.0, 1.0)


def test_midway_without_a_lower_score_is_the_score_itself():
    assert choose([1, 0], [0.5, 0.5], unit="scan", rule="youden midway", locked_at=WHEN).threshold == 0.5


def test_without_negatives_the_rule_says_that_a_quantile_was_taken():
    scores = np.linspace(0.5, 0.9, 21)
    point = choose(np.ones(21), scores, unit="scan", locked_at=WHEN)
    assert point.threshold == pytest.approx(np.quantile(scores, 0.05))
    assert "no negative" in point.rule and point.specificity is None


def test_without_positives_about_one_negative_in_twenty_is_called():
    point = choose(np.zeros(100), np.arange(100) / 100, unit="scan", locked_at=WHEN)
    assert point.specificity == pytest.approx(0.95)
    assert "no positive" in point.rule and point.sensitivity is None


def test_without_any_score_the_threshold_is_a_half_and_says_so():
    point = choose([], [], unit="scan", locked_at=WHEN)
    assert point.threshold == 0.5 and "no labelled score" in point.rule


def test_scores_that_are_not_finite_are_left_out():
    assert choose([1, 0, 1], [0.9, 0.1, np.nan], unit="scan", locked_at=WHEN).n == 2


def test_a_specificity_that_no_score_reaches_calls_nothing():
    point = choose([1, 0], [0.5, 0.5], unit="scan", rule="specificity >= 0.9", locked_at=WHEN)
    assert point.threshold > 0.5 and point.specificity == 1


def test_a_threshold_carries_the_digest_of_what_it_was_chosen_on():
    first, same, other = (choose([1, 0], scores, unit="scan", locked_at=WHEN) for scores in ([0.9, 0.1], [0.9, 0.1], [0.9, 0.2]))
    assert first.evidence_sha256 == same.evidence_sha256 != other.evidence_sha256
    assert len(first.evidence_sha256) == 64


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="best"):
        choose([1, 0], [0.9, 0.1], unit="scan", rule="best", locked_at=WHEN)


def cheapest(labels, scores, *, miss, alarm, prevalence):
    """Every threshold tried, its cost counted case by case; of equal ones the highest."""
    worth = {}
    for threshold in [*scores, max(scores) + 1]:
        missed = [label and score < threshold for label, score in zip(labels, scores, strict=True)]
        alarms = [not label and score >= threshold for label, score in zip(labels, scores, strict=True)]
        share = sum(missed) / sum(labels), sum(alarms) / (len(labels) - sum(labels))
        worth[threshold] = round(miss * prevalence * share[0] + alarm * (1 - prevalence) * share[1], 9)
    return max(threshold for threshold, cost in worth.items() if cost == min(worth.values()))


@pytest.mark.parametrize(("miss", "prevalence"), [(10, 0.05), (1, 0.5), (3, 0.3)])
def test_the_cost_rule_agrees_with_counting_the_cost_of_every_threshold(miss, prevalence):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 60)
    scores = np.round(generator.normal(0.4 + 0.2 * labels, 0.15), 2)
    point = choose(labels, scores, unit="scan", rule=f"cost miss={miss} alarm=1 prevalence={prevalence}", locked_at=WHEN)
    assert point.threshold == pytest.approx(cheapest(labels, scores, miss=miss, alarm=1, prevalence=prevalence))


def test_a_rare_disease_whose_misses_cost_little_is_never_called():
    point = choose([1, 0, 1, 0], [0.9, 0.8, 0.2, 0.1], unit="scan", rule="cost miss=1 alarm=1 prevalence=0.001", locked_at=WHEN)
    assert (point.sensitivity, point.specificity) == (0.5, 1.0)
    point = choose([1, 0, 1, 0], [0.8, 0.9, 0.2, 0.1], unit="scan", rule="cost miss=1 alarm=1 prevalence=0.001", locked_at=WHEN)
    assert (point.sensitivity, point.specificity) == (0.0, 1.0)


@pytest.mark.parametrize("rule", ["cost miss=0 alarm=1 prevalence=0.1", "cost miss=1 alarm=1 prevalence=1"])
def test_costs_and_prevalences_out_of_range_are_refused(rule):
    with pytest.raises(ConfigError, match="must be > 0 and the prevalence"):
        choose([1, 0], [0.9, 0.1], unit="scan", rule=rule, locked_at=WHEN)
