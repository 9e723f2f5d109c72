import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, rankdata
from sklearn.metrics import roc_auc_score

from medssl.evaluation.comparison import (
    Pairs,
    area_difference,
    benjamini_hochberg,
    clustered_difference,
    holm,
    mcnemar,
    paired_delong,
    paired_shares,
)


def pairs(labels, first, second, patients=None):
    return Pairs.of("scan", labels=labels, first=first, second=second, patients=range(len(labels)) if patients is None else patients)


@pytest.fixture
def study():
    """90 scans of 30 patients; the first model is better."""
    generator = np.random.default_rng(1)
    labels = np.repeat(generator.integers(0, 2, 30), 3)
    first, second = (effect * labels + generator.normal(size=90) for effect in (2.5, 0.5))
    return pairs(labels, first, second, np.repeat(np.arange(30), 3))


def test_paired_delong_agrees_with_the_double_sum(study):
    labels, kernels = study.first.labels, []
    for scores in (study.first.scores, study.second.scores):
        difference = scores[labels == 1][:, None] - scores[labels == 0][None]
        kernels.append((difference > 0) + 0.5 * (difference == 0))
    gap = kernels[0] - kernels[1]
    variance = gap.mean(axis=1).var(ddof=1) / len(gap) + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    found = paired_delong(study)
    assert found.value == pytest.approx(gap.mean())
    assert found.beside["z"] == pytest.approx(gap.mean() / np.sqrt(variance))


def test_the_order_of_two_models_only_turns_the_sign(study):
    turned = paired_delong(Pairs(study.second, study.first))
    found = paired_delong(study)
    assert turned.value == -found.value and turned.beside["p"] == pytest.approx(found.beside["p"])


def test_units_without_two_finite_scores_are_left_out_of_both():
    some = pairs([1, 0, 1, 0], [0.9, 0.1, np.nan, 0.3], [0.8, np.inf, 0.7, 0.2])
    assert len(some.first.labels) == len(some.second.labels) == 2 and some.first.excluded == 2


def test_two_models_that_score_alike_have_no_test():
    found = paired_delong(pairs([1, 1, 0, 0], [0.9, 0.8, 0.3, 0.1], [0.9, 0.8, 0.3, 0.1]))
    assert found.value == 0 and found.ci95 is None and found.beside["p"] is None and "rank alike" in found.note


@pytest.mark.parametrize(("positives", "negatives"), [(2, 1), (2, 2), (3, 3)])
def test_few_units_of_a_class_make_no_interval_and_no_small_p(positives, negatives):
    labels = np.repeat([1, 0], [positives, negatives])
    first, second = labels + np.linspace(0, 0.5, len(labels)), 1 - labels + np.linspace(0, 0.5, len(labels))
    found = paired_delong(pairs(labels, first, second))
    assert found.value == 1 and found.ci95 is None and found.beside["p"] > 0.03
    assert found.note == f"no interval: of one class there are only {min(positives, negatives)}"


def test_the_permuted_p_is_that_of_every_way_to_exchange_the_ranks_of_patients():
    labels, patients = np.array([1, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 2, 3, 4])
    first, second = np.array([0.9, 0.8, 0.3, 0.2, 0.6, 0.7]), np.array([0.2, 0.9, 0.4, 0.8, 0.5, 0.1])
    ranks, found = [rankdata(first), rankdata(second)], []
    for changed in itertools.product([False, True], repeat=5):
        rows = np.where(np.array(changed)[patients], ranks[::-1], ranks)
        found.append(np.subtract(*(roc_auc_score(labels, row) for row in rows)))
    extreme = np.mean(np.abs(found) >= abs(found[0]) - 1e-12)
    assert paired_delong(pairs(labels, first, second, patients)).beside["p"] == pytest.approx(extreme, abs=0.03)


def test_a_model_that_separates_the_classes_is_tested_by_permutation_without_an_interval():
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], 12)
    found = paired_delong(pairs(labels, labels + generator.uniform(0, 0.5, 24), generator.normal(size=24)))
    assert found.ci95 is None and "separates the classes" in found.note
    assert "permutation" in found.beside["test"] and found.beside["p"] < 0.05


@pytest.mark.parametrize("difference", [paired_delong, area_difference])
def test_one_class_has_no_difference(difference):
    found = difference(pairs([1, 1], [0.9, 0.8], [0.1, 0.8]))
    assert found.value is None and found.beside["p"] is None and found.note == "cannot be measured: no negative scan"


@pytest.mark.parametrize("difference", [paired_delong, area_difference])
def test_ties_alone_are_an_area_of_a_half_without_a_test(difference):
    found = difference(pairs([1, 0] * 4, [0.5] * 8, [0.5] * 8))
    assert (found.beside["first"], found.value, found.beside["p"], found.ci95) == (0.5, 0, None, None)


def test_mcnemar_names_its_three_forms():
    found = mcnemar(12, 25)
    assert found.exact_p == pytest.approx(binomtest(12, 37).pvalue)
    assert found.chi2_p == pytest.approx(chi2.sf(13**2 / 37, 1))
    assert found.corrected_p == pytest.approx(chi2.sf(12**2 / 37, 1))


def test_models_that_are_right_on_the_same_units_are_not_told_apart():
    assert (mcnemar(0, 0).exact_p, mcnemar(0, 0).chi2) == (1, None)


def test_mcnemar_of_one_more_is_corrected_to_nothing():
    assert mcnemar(3, 4).corrected_p == mcnemar(3, 3).corrected_p == 1


def test_newcombes_interval_agrees_with_the_example_of_its_paper():
    # Newcombe, 1998, table III: a, b, c, d = 36, 12, 2, 0; method 10 gives 0.0569 to 0.3404.
    first = np.repeat([1, 1, 0, 0], [36, 12, 2, 0])
    second = np.repeat([1, 0, 1, 0], [36, 12, 2, 0])
    found = paired_shares(first, second, empty="")
    assert found.value == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert (found.beside["only_first_right"], found.beside["only_second_right"]) == (12, 2)


def test_three_units_that_both_have_right_keep_a_wide_interval():
    found = paired_shares([1, 1, 1], [1, 1, 1], empty="")
    assert found.value == 0 and found.ci95[0] < -0.5 and found.ci95[1] > 0.5 and found.beside["p"] == 1


def test_no_unit_has_no_share():
    assert paired_shares([], [], empty="no positive scan").note == "cannot be measured: no positive scan"


def test_the_bootstrap_of_an_area_finds_a_difference(study):
    found = area_difference(study)
    assert found.value == pytest.approx(paired_delong(study).value)
    assert found.ci95[0] > 0 and found.beside["p"] < 0.05 and 10 <= found.beside["n_patients"] < 30


def test_a_difference_over_patients_is_that_of_the_means():
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 1, 40)
    found = clustered_difference(
        first, first - 0.2 + generator.normal(0, 0.05, 40), np.ones(40), patients=np.repeat(range(20), 2), empty=""
    )
    assert found.value == pytest.approx(0.2, abs=0.03) and found.ci95[0] > 0.1 and found.beside["p"] == pytest.approx(2 / 2001)


def test_patients_without_a_lesion_do_not_count_in_a_share_of_lesions():
    found = clustered_difference([1, 2, 0], [1, 1, 0], [2, 2, 0], patients=["a", "b", "c"], empty="")
    assert (found.value, found.beside["n_patients"], found.n) == (0.25, 2, 4)


def test_few_patients_have_a_difference_without_interval_and_test():
    found = clustered_difference([0.9] * 9, np.linspace(0.7, 0.8, 9), np.ones(9), patients=range(9), empty="")
    assert found.value == pytest.approx(0.15) and found.ci95 is None and found.beside["p"] is None
    assert found.note == "an interval drawn from 9 patients would be too narrow, none is given, and no test"


def test_one_patient_has_no_interval():
    found = clustered_difference([0.9], [0.1], [1], patients=["a"], empty="")
    assert found.value == pytest.approx(0.8) and found.ci95 is None and found.beside["p"] is None


def test_nothing_to_share_has_no_difference():
    assert clustered_difference([0], [0], [0], patients=["a"], empty="no true lesion").note == "cannot be measured: no true lesion"


def test_holm_keeps_the_order_of_the_tests_and_never_exceeds_1():
    assert holm([0.5, 0.01, 0.04]) == pytest.approx([0.5, 0.03, 0.08])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1]) and holm([]).size == 0


def test_benjamini_hochberg_never_asks_for_more_than_holm():
    p = np.random.default_rng(0).uniform(0, 0.2, 20)
    assert (benjamini_hochberg(p) <= holm(p) + 1e-12).all() and (benjamini_hochberg(p) >= p).all()
