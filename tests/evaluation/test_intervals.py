import numpy as np
import pytest

from medssl.evaluation.intervals import clopper_pearson, clustered_proportion, proportion, wilson


def test_wilson_and_clopper_pearson_agree_with_statsmodels(stats):
    for case in stats["proportion_ci_95"]["cases"]:
        assert wilson(case["k"], case["n"]) == pytest.approx(case["wilson"], abs=1e-6)
        assert clopper_pearson(case["k"], case["n"]) == pytest.approx(case["clopper_pearson"], abs=1e-6)


def test_nothing_measured_is_null_and_says_what_is_missing():
    record = proportion(0, 0, empty="no negative scan").to_json()
    assert (record["value"], record["ci95"], record["k"], record["n"]) == (None, [None, None], 0, 0)
    assert record["note"] == "cannot be measured: no negative scan"


def test_wilson_covers_the_truth_about_95_times_in_100():
    k = np.random.default_rng(0).binomial(30, 0.9, 20_000)
    inside = [low <= 0.9 <= high for low, high in (wilson(int(value), 30) for value in k)]
    assert 0.93 <= np.mean(inside) <= 0.98


def test_the_bootstrap_of_patients_agrees_with_its_reference(stats):
    block = stats["clustered_proportion"]
    hits, trials = np.array(block["detected_of_lesions_per_patient"]).T
    metric = clustered_proportion(hits, trials, empty="", draws=20_000)
    assert metric.value == pytest.approx(block["point"])
    assert metric.ci95 == pytest.approx(block["bootstrap_patients_20000_percentile"], abs=block["tolerance_bootstrap"])


def test_the_bootstrap_of_patients_covers_slices_that_hang_together():
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        rates = generator.beta(4, 1, 40)
        trials = generator.integers(1, 8, 40)
        low, high = clustered_proportion(generator.binomial(trials, rates), trials, empty="", draws=500).ci95
        covered.append(low <= 0.8 <= high)
    assert np.mean(covered) >= 0.9


def test_a_perfect_rate_of_few_patients_keeps_a_wide_interval():
    metric = clustered_proportion([30, 30, 30], [30, 30, 30], empty="")
    assert metric.value == 1
    assert metric.ci95 == pytest.approx(wilson(3, 3))
    assert "no spread" in metric.method


def test_wilson_stands_beside_the_bootstrap():
    metric = clustered_proportion([1, 3, 0], [2, 3, 2], empty="").to_json()
    assert metric["wilson95"] == pytest.approx(list(wilson(4, 7)))
