"""Do the intervals hold the truth as often as they say, and are p values uniform where nothing differs? Fixed seeds, many studies."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from medssl.evaluation.classification import Units, auroc, delong
from medssl.evaluation.comparison import Pairs, area_difference, paired_delong, paired_shares
from medssl.evaluation.intervals import clopper_pearson, clustered_proportion, wilson
from medssl.evaluation.segmentation import summarise

pytestmark = pytest.mark.slow


@pytest.fixture
def generator():
    return np.random.default_rng(20261125)


def holds(interval, truth):
    return interval[0] <= truth <= interval[1]


def test_wilson_covers_about_95_in_100(generator):
    inside = [holds(wilson(int(k), 30), 0.9) for k in generator.binomial(30, 0.9, 20_000)]
    assert 0.93 <= np.mean(inside) <= 0.98


def test_clopper_pearson_covers_at_least_95_in_100(generator):
    ends = [clopper_pearson(k, 30) for k in range(31)]
    assert np.mean([holds(ends[k], 0.9) for k in generator.binomial(30, 0.9, 20_000)]) >= 0.95


def covered(generator, patients, shape, studies):
    """How often the interval of the share of lesions found holds the truth, when that share differs from patient to patient."""
    inside, (a, b) = [], shape
    for _ in range(studies):
        trials = generator.integers(1, 8, patients)
        hits = generator.binomial(trials, generator.beta(a, b, patients))
        inside.append(holds(clustered_proportion(hits, trials, empty="").ci95, a / (a + b)))
    return np.mean(inside)


def test_the_bootstrap_of_40_patients_covers_lesions_that_hang_together(generator):
    assert covered(generator, 40, (4, 1), 2000) >= 0.92


@pytest.mark.parametrize(
    ("patients", "shape", "least"),
    [(40, (1, 1), 0.92), (40, (9.5, 0.5), 0.86), (20, (4, 1), 0.88), (10, (4, 1), 0.84), (10, (1, 1), 0.84)],
)
def test_the_bootstrap_of_fewer_patients_and_of_other_rates_covers_less_but_not_much_less(generator, patients, shape, least):
    assert covered(generator, patients, shape, 500) >= least


@pytest.mark.parametrize("patients", [3, 5, 9])
def test_students_interval_covers_the_mean_of_few_patients(generator, patients):
    inside = []
    for _ in range(2000):
        found = summarise(generator.beta(8, 2, patients), range(patients))
        inside.append(holds(found["ci95"], 0.8))
    assert np.mean(inside) >= 0.92


def slices_of_patients(generator, *, effect, patients=40, slices=5):
    """Labels, scores and patients: half of the patients have a lesion in every slice, and a patient's slices share half of their noise."""
    labels = np.repeat(np.arange(patients) % 2, slices)
    noise = np.repeat(generator.normal(0, np.sqrt(0.5), patients), slices) + generator.normal(0, np.sqrt(0.5), patients * slices)
    return labels, effect * labels + noise, np.repeat(np.arange(patients), slices)


def test_the_bootstrap_of_40_patients_covers_the_auroc_of_their_slices(generator):
    inside = []
    for _ in range(600):
        labels, scores, patients = slices_of_patients(generator, effect=1.0)
        found = auroc(Units.of("slice", labels=labels, scores=scores, patients=patients), clustered=True)
        inside.append(holds(found.ci95, norm.cdf(1 / np.sqrt(2))))
    assert np.mean(inside) >= 0.92


def test_delongs_interval_covers_the_auroc(generator):
    inside = []
    for _ in range(2000):
        labels = np.repeat([1, 0], [40, 60])
        units = Units.of("scan", labels=labels, scores=labels + generator.normal(size=100), patients=np.arange(100))
        inside.append(holds(auroc(units).ci95, norm.cdf(1 / np.sqrt(2))))
    assert 0.93 <= np.mean(inside) <= 0.97


@pytest.mark.parametrize("positives", [2, 3, 5])
def test_the_interval_of_the_auroc_of_few_positives_covers_it(generator, positives):
    inside, labels = [], np.repeat([1, 0], [positives, 60])
    for _ in range(400):
        scores = 1.5 * labels + generator.normal(size=len(labels))
        found = auroc(Units.of("scan", labels=labels, scores=scores, patients=np.arange(len(labels))))
        inside.append(holds(found.ci95, norm.cdf(1.5 / np.sqrt(2))))
    assert np.mean(inside) >= 0.93


def test_delongs_p_values_are_uniform_where_scores_say_nothing(generator):
    labels, p_values = np.repeat([1, 0], [100, 100]), []
    for _ in range(2000):
        area, variance = delong(labels, generator.normal(size=200))
        p_values.append(2 * norm.sf(abs(area - 0.5) / np.sqrt(variance)))
    assert kstest(p_values, "uniform").pvalue > 0.01


def equally_good(generator):
    labels = np.repeat([1, 0], [100, 100])
    common = generator.normal(size=200)
    scores = [labels + common + generator.normal(size=200) for _ in range(2)]
    return Pairs.of("scan", labels=labels, first=scores[0], second=scores[1], patients=np.arange(200))


def test_paired_delongs_p_values_are_uniform_where_two_models_are_equally_good(generator):
    p_values = [paired_delong(equally_good(generator)).beside["p"] for _ in range(2000)]
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_the_permuted_p_of_few_positives_rejects_no_more_than_it_says(generator):
    labels, p_values = np.repeat([1, 0], [4, 20]), []
    for _ in range(400):
        common = labels + generator.normal(size=24)
        first, second = (common + generator.normal(size=24) for _ in range(2))
        p_values.append(paired_delong(Pairs.of("scan", labels=labels, first=first, second=second, patients=np.arange(24))).beside["p"])
    assert np.mean(np.array(p_values) < 0.05) <= 0.08 and 0.4 <= np.median(p_values) <= 0.6


def test_paired_delongs_interval_covers_the_difference(generator):
    assert 0.93 <= np.mean([holds(paired_delong(equally_good(generator)).ci95, 0) for _ in range(1000)]) <= 0.97


def test_the_bootstrap_of_the_difference_of_two_aurocs_rejects_no_more_than_it_says(generator):
    p_values = []
    for _ in range(400):
        labels, scores, patients = slices_of_patients(generator, effect=1.0)
        second = scores + generator.normal(0, 0.5, len(scores))
        first = scores + generator.normal(0, 0.5, len(scores))
        p_values.append(area_difference(Pairs.of("slice", labels=labels, first=first, second=second, patients=patients)).beside["p"])
    assert np.mean(np.array(p_values) < 0.05) <= 0.08


def test_newcombes_interval_covers_the_difference_of_two_paired_shares(generator):
    inside = []
    for _ in range(2000):
        easy = generator.normal(size=40)
        right = [easy + generator.normal(size=40) > limit for limit in (-1.5, -1.0)]
        inside.append(holds(paired_shares(*right, empty="").ci95, norm.cdf(1.5 / np.sqrt(2)) - norm.cdf(1 / np.sqrt(2))))
    assert np.mean(inside) >= 0.94


def test_mcnemars_exact_p_rejects_no_more_than_it_says(generator):
    rejected = []
    for _ in range(2000):
        easy = generator.normal(size=60)
        right = [easy + generator.normal(size=60) > -1 for _ in range(2)]
        rejected.append(paired_shares(*right, empty="").beside["p"] < 0.05)
    assert np.mean(rejected) <= 0.05
