import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medssl.evaluation import classification, resampling
from medssl.evaluation.classification import (
    Counts,
    assess,
    auprc,
    auroc,
    delong,
    likelihood_ratios,
    newcombe,
    predictive_values,
    predictive_values_at,
)


def test_delong_agrees_with_the_double_sum():
    generator = np.random.default_rng(0)
    labels, scores = np.repeat([1, 0], [7, 9]), generator.integers(0, 6, 16)
    won = np.array([[float(a > b) + 0.5 * (a == b) for b in scores[7:]] for a in scores[:7]])
    variance = won.mean(axis=1).var(ddof=1) / 7 + won.mean(axis=0).var(ddof=1) / 9
    assert delong(labels, scores) == pytest.approx((won.mean(), variance))


def test_perfect_separation_keeps_a_wide_interval(units):
    metric = auroc(units([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]))
    assert metric.value == 1
    assert metric.ci95[0] < 0.7 and metric.ci95[1] == 1


def test_one_positive_and_one_negative_are_measured_without_a_crash(units):
    metric = auroc(units([1, 0], [0.9, 0.1]))
    assert metric.value == 1 and metric.ci95[0] < 0.3


def test_one_positive_keeps_a_wide_interval_however_many_the_negatives(units):
    metric = auroc(units([1] + [0] * 60, [0.9, *np.linspace(0, 1, 60)]))
    assert metric.value == pytest.approx(0.9, abs=0.01)
    assert metric.ci95[0] < 0.5 and "Newcombe" in metric.method


def test_ties_alone_are_an_area_of_a_half_with_an_interval(units):
    metric = auroc(units([1, 0] * 30, [0.5] * 60))
    assert metric.value == 0.5 and metric.ci95[0] < 0.4 < 0.6 < metric.ci95[1]


def test_newcombe_is_symmetric_about_a_half():
    low, high = newcombe(0.8, 10, 12)
    assert newcombe(1 - 0.8, 10, 12) == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_average_precision_is_the_step_sum(stats, scored):
    metric = auprc(scored)
    assert metric.value == pytest.approx(stats["auprc"]["ap_a"], abs=1e-9)
    assert metric.ci95[0] < metric.value < metric.ci95[1]
    assert metric.beside["baseline"] == pytest.approx(0.4)


def test_the_weighted_curves_of_the_bootstrap_agree_with_sklearn_on_repeated_units(scored):
    ranked = classification.RankedUnits(scored.labels, scored.scores)
    weights = np.random.default_rng(3).integers(0, 4, (5, 60)).astype(float)
    hits, alarms = ranked.cumulated(weights)
    areas, precisions = (
        resampling.RankedPairs(scored.labels, scored.scores, np.arange(60)).areas(weights),
        classification._average_precision(hits, alarms),
    )
    for row, weight in enumerate(weights.astype(int)):
        labels, scores = np.repeat(scored.labels, weight), np.repeat(scored.scores, weight)
        assert areas[row] == pytest.approx(roc_auc_score(labels, scores))
        assert precisions[row] == pytest.approx(average_precision_score(labels, scores))


def test_rates_agree_with_the_confusion_table(stats, units):
    block = stats["confusion"]
    labels = [1] * 50 + [0] * 200
    called = [1] * 45 + [0] * 5 + [1] * 20 + [0] * 180
    found = assess(units(labels, np.array(called, dtype=float)), threshold=0.5, clustered=False)
    for name, twin in {"sensitivity": "sens", "specificity": "spec", "ppv": "ppv", "npv": "npv", "f1": "f1"}.items():
        assert found[name].value == pytest.approx(block[twin])
    assert (found["sensitivity"].k, found["sensitivity"].n) == (45, 50)
    assert found["sensitivity"].ci95 == pytest.approx(stats["proportion_ci_95"]["cases"][0]["wilson"])
    assert found["precision"] == found["ppv"] and found["recall"] == found["sensitivity"]
    assert found["f1"].ci95[0] < block["f1"] < found["f1"].ci95[1]


def test_predictive_values_at_the_tables_own_prevalence_are_those_of_the_table():
    found = predictive_values_at(Counts(tp=45, fn=5, fp=20, tn=180), prevalence=0.2)
    assert found["ppv"].value == pytest.approx(45 / 65) and found["npv"].value == pytest.approx(180 / 185)


@pytest.mark.parametrize("name", ["ppv", "npv"])
def test_the_interval_of_a_predictive_value_is_that_of_the_likelihood_ratio(name):
    counts, odds = Counts(tp=45, fn=5, fp=20, tn=180), 0.05 / 0.95
    low, high = predictive_values_at(counts, prevalence=0.05)[name].ci95
    ratios = likelihood_ratios(counts)
    chances = [odds * end for end in ratios["lr_positive" if name == "ppv" else "lr_negative"].ci95]
    expected = [chance / (1 + chance) for chance in chances] if name == "ppv" else [1 / (1 + chance) for chance in chances[::-1]]
    assert (low, high) == pytest.approx(expected)


@pytest.mark.slow
def test_the_interval_of_a_predictive_value_covers_it():
    generator, inside = np.random.default_rng(0), []
    truth = predictive_values(0.85, 0.9, prevalence=0.05)
    for tp, tn in zip(generator.binomial(60, 0.85, 4000), generator.binomial(120, 0.9, 4000), strict=True):
        found = predictive_values_at(Counts(int(tp), 60 - int(tp), 120 - int(tn), int(tn)), prevalence=0.05)
        inside.append([found[name].ci95[0] <= value <= found[name].ci95[1] for name, value in zip(("ppv", "npv"), truth, strict=True)])
    assert (np.mean(inside, axis=0) >= 0.93).all()


def test_a_predictive_value_without_a_wrong_call_keeps_a_wide_interval():
    found = predictive_values_at(Counts(tp=3, fn=0, fp=0, tn=3), prevalence=0.05)
    assert found["ppv"].value == 1 and found["ppv"].ci95[0] < 0.5
    assert "1/2 was added" in found["npv"].note


def test_without_a_call_or_a_class_there_is_no_predictive_value():
    assert predictive_values_at(Counts(tp=0, fn=3, fp=0, tn=3), prevalence=0.05)["ppv"].value is None
    assert "one class is missing" in predictive_values_at(Counts(tp=2, fn=1, fp=0, tn=0), prevalence=0.05)["npv"].note


def test_one_class_has_no_balanced_accuracy():
    assert Counts(tp=2, fn=1, fp=0, tn=0).balanced_accuracy is None


def test_without_negatives_specificity_and_areas_are_null(units):
    found = assess(units([1, 1, 1], [0.9, 0.6, 0.2]), threshold=0.5, clustered=False)
    for name in ("specificity", "auroc", "auprc"):
        assert found[name].value is None
        assert found[name].note == "cannot be measured: no negative scan"
    assert found["sensitivity"].value == pytest.approx(2 / 3)


def test_no_units_at_all_are_null_everywhere(units):
    found = assess(units([], []), threshold=0.5, clustered=True)
    assert {metric.value for metric in found.values()} == {None}


def test_scores_that_are_not_finite_are_left_out_and_counted(units):
    some = units([1, 0, 1, 0], [0.9, 0.1, np.nan, np.inf])
    assert (len(some.labels), some.excluded) == (2, 2)


def test_slices_of_a_patient_make_the_interval_wider_than_wilson(units):
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 30)
    scores = np.clip(np.repeat(generator.uniform(0, 1, 20), 30) + generator.normal(0, 0.05, 600), 0, 1)
    found = assess(units(np.ones(600, int), scores, patients, "slice"), threshold=0.3, clustered=True)["sensitivity"]
    low, high = found.beside["wilson95"]
    assert found.ci95[1] - found.ci95[0] > 2 * (high - low)
    assert "patients" in found.method


def test_an_auroc_of_slices_is_bootstrapped_over_patients(units):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    found = auroc(units(labels, labels * 0.3 + generator.uniform(0, 1, 400), np.repeat(np.arange(40), 10), "slice"), clustered=True)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert "bootstrap of patients" in found.method
