"""Several classes: against scikit-learn and against sums written out."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, roc_auc_score

from medssl.evaluation.intervals import wilson
from medssl.evaluation.multiclass import ClassUnits, assess, class_dice, confusion, dice_by_class, macro, macro_auroc

NAMES = ("normal", "benign", "malignant")


def units(count: int = 60, *, exclusive: bool = True) -> ClassUnits:
    generator = np.random.default_rng(0)
    index = generator.integers(0, 3, count)
    truth = np.eye(3, dtype=int)[index] if exclusive else generator.integers(0, 2, (count, 3))
    raw = np.exp(generator.normal(size=(count, 3)) + 1.2 * truth)
    scores = raw / raw.sum(axis=1, keepdims=True) if exclusive else raw / (1 + raw)
    patients = np.array([f"p{number // 2}" for number in range(count)])
    return ClassUnits("scan", NAMES, truth, scores, patients, exclusive)


def test_macro_auroc_is_the_mean_against_the_rest() -> None:
    one = units()
    assert macro_auroc(one).value == pytest.approx(roc_auc_score(one.truth.argmax(axis=1), one.scores, multi_class="ovr"))


def test_rates_are_those_of_scikit_learn() -> None:
    one = units()
    truth, called = one.truth.argmax(axis=1), one.scores.argmax(axis=1)
    assert macro(one, "recall").value == pytest.approx(balanced_accuracy_score(truth, called))
    assert macro(one, "f1").value == pytest.approx(f1_score(truth, called, average="macro"))
    np.testing.assert_array_equal(confusion(one), confusion_matrix(truth, called))


def test_several_labels_have_areas_and_f1_but_no_confusion_table() -> None:
    several = units(exclusive=False)
    record = assess(several)
    assert record["macro_auroc"]["value"] == pytest.approx(roc_auc_score(several.truth, several.scores, average="macro"))
    assert record["macro_f1"]["value"] == pytest.approx(f1_score(several.truth, several.scores >= 0.5, average="macro"))
    assert "confusion" not in record


def test_the_interval_of_the_macro_mean_draws_whole_patients() -> None:
    one = units()
    generator, samples = np.random.default_rng(5), []
    names = np.unique(one.patients)
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(one.patients == name) for name in generator.choice(names, len(names))])
        samples.append(roc_auc_score(one.truth[rows].argmax(axis=1), one.scores[rows], multi_class="ovr"))
    interval = macro_auroc(one).ci95
    assert interval is not None
    np.testing.assert_allclose(interval, np.percentile(samples, (2.5, 97.5)), atol=0.02)


def test_a_class_without_members_is_left_out_and_said() -> None:
    one = units()
    kept = one.truth[:, 2] == 0
    fewer = ClassUnits("scan", NAMES, one.truth[kept], one.scores[kept], one.patients[kept], True)
    metric = macro(fewer, "recall")
    assert metric.value == pytest.approx(np.mean([assess(fewer)["by_class"][name]["recall"]["value"] for name in NAMES[:2]]))
    assert "1 of 3 classes are left out" in metric.note


def test_recall_and_precision_of_a_class_have_wilsons_interval_where_each_patient_has_one_scan() -> None:
    one = replace(units(), patients=np.arange(60).astype(str))
    truth, called = one.truth.argmax(axis=1), one.scores.argmax(axis=1)
    record = assess(one)["by_class"]["benign"]
    hits = int(((truth == 1) & (called == 1)).sum())
    assert (record["recall"]["k"], record["recall"]["n"]) == (hits, int((truth == 1).sum()))
    assert (record["precision"]["k"], record["precision"]["n"]) == (hits, int((called == 1).sum()))
    assert record["recall"]["ci95"] == pytest.approx(list(wilson(hits, (truth == 1).sum())))
    assert "patients" in assess(units())["by_class"]["benign"]["recall"]["method"]


def test_a_macro_mean_is_over_the_same_classes_in_every_draw() -> None:
    one = units()
    rare = np.flatnonzero(one.truth[:, 2])[1:]
    kept = np.setdiff1d(np.arange(60), rare)
    fewer = ClassUnits("scan", NAMES, one.truth[kept], one.scores[kept], one.patients[kept], True)
    for metric in (macro_auroc(fewer), macro(fewer, "recall"), macro(fewer, "f1")):
        assert metric.ci95 is None and metric.value is not None
        lacking = int(metric.note.split()[2])
        assert abs(lacking / 2000 - np.exp(-1)) < 0.05 and "draws of patients lack a class" in metric.note


def test_draws_that_lack_a_class_are_left_out_and_counted() -> None:
    one = units()
    rare = np.flatnonzero(one.truth[:, 2])
    three = rare[np.unique(one.patients[rare], return_index=True)[1][:3]]
    kept = np.setdiff1d(np.arange(60), np.setdiff1d(rare, three))
    fewer = ClassUnits("scan", NAMES, one.truth[kept], one.scores[kept], one.patients[kept], True)
    metric = macro(fewer, "recall")
    assert metric.ci95 is None
    assert "drawn from 3 patients would be too narrow" in metric.note
    assert "of 2000 draws of patients lack a class" in metric.note


def test_without_units_nothing_is_measured() -> None:
    nobody = ClassUnits("scan", NAMES, np.zeros((0, 3), int), np.zeros((0, 3)), np.zeros(0, str), True)
    record = assess(nobody)
    assert (record["macro_auroc"]["value"], record["macro_f1"]["value"], record["n"]) == (None, None, 0)


def test_dice_of_each_class_is_that_of_its_voxels() -> None:
    truth, found = np.zeros((4, 4, 1), int), np.zeros((4, 4, 1), int)
    truth[:2], truth[2] = 1, 2
    found[:1], found[2] = 1, 2
    assert class_dice(found, truth, 3) == (pytest.approx(2 * 4 / 12), 1.0, None)


def test_mean_dice_of_a_class_is_over_the_scans_that_have_it() -> None:
    record = dice_by_class(("a", "b"), [(0.5, None), (1.0, None)], ["p", "q"])
    assert (record["a"]["mean"], record["a"]["n"], record["b"]["n"]) == (0.75, 2, 0)
