import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medssl.errors import UsageError
from medssl.evaluation.agreement import cohen_kappa, fleiss_kappa


def readings(n=60, categories=4, *, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, categories, n)
    return [np.where(generator.random(n) < 0.6, truth, generator.integers(0, categories, n)) for _ in range(2)]


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohens_kappa_agrees_with_scikit_learn(weights):
    first, second = readings()
    expected = cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    assert cohen_kappa(first, second, weights=weights).value == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_the_interval_of_cohens_kappa_is_as_wide_as_kappa_varies(weights):
    drawn = [cohen_kappa(*readings(200, seed=seed), weights=weights) for seed in range(600)]
    widths = [metric.ci95[1] - metric.ci95[0] for metric in drawn]
    assert np.mean(widths) / (2 * 1.96) == pytest.approx(np.std([metric.value for metric in drawn]), rel=0.1)


def test_categories_may_be_names():
    assert cohen_kappa(["a", "b", "a", "b"], ["a", "b", "b", "b"]).value == pytest.approx(0.5)


def test_readers_who_never_differ_have_no_interval_of_width_0():
    found = cohen_kappa([0, 1, 0, 1], [0, 1, 0, 1])
    assert found.value == 1 and found.ci95 is None and "no interval" in found.note


def test_one_answer_to_every_case_is_no_agreement_beyond_chance():
    assert cohen_kappa([1, 1, 1], [1, 1, 1]).value is None
    assert fleiss_kappa([[3, 0], [3, 0]]).value is None


def test_few_cases_are_told():
    assert "only 4 cases" in cohen_kappa([0, 1, 0, 1], [0, 1, 1, 1]).note


def test_no_case_has_no_kappa():
    assert cohen_kappa([], []).value is None and fleiss_kappa([]).value is None


def test_readers_of_different_cases_are_refused():
    with pytest.raises(UsageError, match="2 and 3"):
        cohen_kappa([0, 1], [0, 1, 1])


def test_fleiss_kappa_agrees_with_the_example_of_its_paper():
    # Fleiss, 1971, as in every textbook: 10 cases, 14 readers, 5 categories.
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    found = fleiss_kappa(counts)
    assert found.value == pytest.approx(0.2099, abs=1e-4)
    assert found.ci95[0] < found.value < found.ci95[1] and found.k == 1


def test_fleiss_kappa_of_two_readers_is_scotts_pi():
    first, second = readings(categories=2)
    counts = np.stack([(first == c).astype(int) + (second == c) for c in range(2)], axis=1)
    share = (first.mean() + second.mean()) / 2
    expected = share**2 + (1 - share) ** 2
    assert fleiss_kappa(counts).value == pytest.approx(((first == second).mean() - expected) / (1 - expected))


def test_different_numbers_of_readers_are_refused():
    with pytest.raises(UsageError, match="same number of readers"):
        fleiss_kappa([[2, 0], [2, 1]])


def test_cases_that_a_reader_left_open_are_left_out_and_counted():
    first, second = [1.0, 0.0, 1.0, 0.0, np.nan, np.nan], [1.0, 1.0, 1.0, 0.0, np.nan, 1.0]
    found, alone = cohen_kappa(first, second), cohen_kappa(first[:4], second[:4])
    assert (found.value, found.k, found.n) == (alone.value, 3, 4)
    assert "2 cases without two readings are left out" in found.note
    assert cohen_kappa([np.nan], [1.0]).value is None
