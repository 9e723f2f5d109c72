import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from medssl.errors import UsageError
from medssl.evaluation.representation import alignment, effective_rank, linear_probe, neighbours, spread, uniformity

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(12, 5))
LABELS = np.array([0, 1] * 6)
PATIENTS = np.repeat(["a", "b", "c", "d"], 3)


def test_effective_rank_equals_the_entropy_of_eigenvalues_written_out() -> None:
    centred = FEATURES - FEATURES.mean(axis=0)
    values = [math.sqrt(max(value, 0)) for value in np.linalg.eigvalsh(centred.T @ centred)]
    entropy = -sum(value / sum(values) * math.log(value / sum(values)) for value in values)
    assert effective_rank(FEATURES) == pytest.approx(math.exp(entropy))


def test_effective_rank_is_the_number_of_equal_directions_and_1_on_a_line() -> None:
    corners = np.concatenate([np.eye(3), -np.eye(3)]) @ GENERATOR.normal(size=(3, 3)).T
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
    assert effective_rank(square) == pytest.approx(2)
    assert effective_rank(np.outer(np.arange(6), [1, 2, 3])) == pytest.approx(1)
    assert 1 < effective_rank(corners) < 3


def test_constant_features_have_rank_0_and_no_spread() -> None:
    assert effective_rank(np.full((9, 4), 3.7)) == 0
    assert spread(np.full((9, 4), 3.7)) == pytest.approx(np.zeros(4), abs=1e-12)


def test_spread_equals_the_deviation_written_out_and_does_not_depend_on_scale() -> None:
    length = math.sqrt(sum(value**2 for row in FEATURES for value in row) / (12 * 5))
    mean = [sum(row[column] for row in FEATURES) / 12 for column in range(5)]
    slow = [math.sqrt(sum((row[column] - mean[column]) ** 2 for row in FEATURES) / 12) / length for column in range(5)]
    assert spread(FEATURES) == pytest.approx(slow)
    assert spread(FEATURES * 7) == pytest.approx(slow)


def test_alignment_equals_a_loop_and_is_0_for_equal_views() -> None:
    other = GENERATOR.normal(size=FEATURES.shape)
    distances = [
        sum((x / np.linalg.norm(one) - y / np.linalg.norm(two)) ** 2 for x, y in zip(one, two, strict=True))
        for one, two in zip(FEATURES, other, strict=True)
    ]
    assert alignment(FEATURES, other) == pytest.approx(sum(distances) / 12)
    assert alignment(FEATURES, 2 * FEATURES) == pytest.approx(0, abs=1e-12)


def test_uniformity_equals_a_loop_over_pairs_and_is_0_at_collapse() -> None:
    unit = [row / np.linalg.norm(row) for row in FEATURES]
    pairs = [math.exp(-2 * float(((unit[i] - unit[j]) ** 2).sum())) for i in range(12) for j in range(i)]
    assert uniformity(FEATURES) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert uniformity(np.ones((4, 3))) == pytest.approx(0)


def test_neighbours_equal_a_loop_that_leaves_the_own_patient_out() -> None:
    right = 0
    for row in range(12):
        likeness = {
            other: FEATURES[row] @ FEATURES[other] / np.linalg.norm(FEATURES[row]) / np.linalg.norm(FEATURES[other])
            for other in range(12)
            if PATIENTS[other] != PATIENTS[row]
        }
        nearest = sorted(likeness, key=lambda other: -likeness[other])[:3]
        right += (sum(LABELS[nearest]) / 3 >= 0.5) == LABELS[row]
    assert neighbours(FEATURES, LABELS, PATIENTS, k=3).accuracy == pytest.approx(right / 12)


def test_the_probe_equals_ridge_regression_of_scikit_learn_without_each_patient() -> None:
    right = 0
    for patient in "abcd":
        held = patient == PATIENTS
        middle, scale = FEATURES[~held].mean(axis=0), FEATURES[~held].std(axis=0) + 1e-6
        fitted = Ridge(alpha=2.0 * (~held).sum()).fit((FEATURES[~held] - middle) / scale, LABELS[~held])
        right += ((fitted.predict((FEATURES[held] - middle) / scale) >= 0.5) == LABELS[held]).sum()
    assert linear_probe(FEATURES, LABELS, PATIENTS, folds=4, penalty=2.0).accuracy == pytest.approx(right / 12)


def test_features_that_hold_the_answer_are_told_and_noise_of_a_patient_is_not() -> None:
    telling = FEATURES * 0.1 + np.outer(LABELS - 0.5, np.ones(5))
    assert linear_probe(telling, LABELS, PATIENTS).auroc == 1
    assert neighbours(telling, LABELS, PATIENTS, k=3).auroc == 1
    own = np.eye(4).repeat(3, axis=0) * 5 + FEATURES[:, :4] * 1e-3  # knows the patient alone
    by_patient = np.repeat([0, 1, 0, 1], 3)
    assert linear_probe(own, by_patient, PATIENTS, folds=4).auroc <= 0.5


def test_one_patient_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="two patients"):
        neighbours(FEATURES, LABELS, ["a"] * 12)
