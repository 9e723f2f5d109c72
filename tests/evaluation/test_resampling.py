import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from medssl.evaluation.intervals import index_patients, patient_weights
from medssl.evaluation.resampling import RankedPairs, area_samples, resample


@pytest.fixture
def study():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    return labels, np.round(labels * 0.5 + generator.normal(size=60), 1), np.repeat(np.arange(15), 4)


def test_every_draw_agrees_with_scikit_learn_on_the_units_it_repeats(study):
    labels, scores, patients = study
    drawn = resample(labels, scores, patients, threshold=0.3, draws=20, seed=5)
    index, count = index_patients(patients)
    weights = np.concatenate(list(patient_weights(count, draws=20, seed=5))).astype(int)
    for row, weight in enumerate(weights):
        truth, score = np.repeat(labels, weight[index]), np.repeat(scores, weight[index])
        assert drawn["auroc"][row] == pytest.approx(roc_auc_score(truth, score))
        assert drawn["sensitivity"][row] == pytest.approx(recall_score(truth, score >= 0.3))
        assert drawn["specificity"][row] == pytest.approx(recall_score(truth, score >= 0.3, pos_label=0))


def test_a_seed_gives_the_same_draws(study):
    assert np.array_equal(area_samples(*study, draws=300), resample(*study, threshold=0.0, draws=300)["auroc"])
    assert not np.array_equal(area_samples(*study, draws=300), area_samples(*study, draws=300, seed=1))


def test_a_draw_without_both_classes_has_no_area():
    areas = RankedPairs([1, 0], [0.9, 0.1], np.array([0, 1])).areas(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(areas[0]) and areas[1] == 1


def test_ties_count_a_half():
    assert RankedPairs([1, 0, 0], [0.5, 0.5, 0.1], np.arange(3)).areas(np.ones((1, 3)))[0] == 0.75


def test_a_study_of_one_class_has_no_specificity_and_no_area():
    drawn = resample([1, 1], [0.9, 0.1], ["a", "b"], threshold=0.5, draws=10)
    assert np.isnan(drawn["specificity"]).all() and np.isnan(drawn["auroc"]).all()
    assert np.isfinite(drawn["sensitivity"]).all()
