import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medssl.evaluation.classification import Units, auroc
from medssl.evaluation.intervals import index_patients, patient_weights
from medssl.evaluation.robustness import (
    Outcome,
    agreement,
    difference,
    differences,
    ever_turned,
    measure,
    paired,
    within_case_deviation,
)

POINTS = {"scan": 0.5, "slice": 0.5}


def cohort(seed: int = 0, *, patients: int = 24, shift: float = 0.0) -> list[Outcome]:
    """Two scans a patient; `shift` takes suspicion away from scans with lesion."""
    generator = np.random.default_rng(seed)
    outcomes = []
    for number in range(2 * patients):
        label = number % 4 // 2
        labels = tuple(int(label and k in (1, 2)) for k in range(4))
        scores = tuple(float(np.clip(0.3 + 0.4 * one + generator.normal(0, 0.15) - shift * one, 0, 1)) for one in labels)
        dice = float(np.clip(0.8 + generator.normal(0, 0.05) - shift, 0, 1)) if label else None
        outcomes.append(Outcome(f"s{number}", f"p{number // 2}", label, max(scores), labels, scores, dice))
    return outcomes


def test_numbers_are_those_of_other_packages() -> None:
    outcomes = cohort()
    found = measure(outcomes, POINTS)
    labels = np.array([outcome.label for outcome in outcomes])
    scores = np.array([outcome.score for outcome in outcomes])
    assert found["scan_auroc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found["scan_sensitivity"].value == pytest.approx((scores[labels == 1] >= 0.5).mean())
    assert found["scan_specificity"].value == pytest.approx((scores[labels == 0] < 0.5).mean())
    slices = [(label, score) for outcome in outcomes for label, score in zip(outcome.slice_labels, outcome.slice_scores, strict=True)]
    assert found["slice_auroc"].value == pytest.approx(roc_auc_score(*zip(*slices, strict=True)))
    assert found["dice"].value == pytest.approx(np.mean([outcome.dice for outcome in outcomes if outcome.dice is not None]))


def test_draws_of_an_area_are_the_areas_of_the_drawn_patients() -> None:
    outcomes = cohort()
    found = measure(outcomes, POINTS)["scan_auroc"].samples
    index, count = index_patients([outcome.patient for outcome in outcomes])
    drawn = next(patient_weights(count))[:20]
    for weights, sample in zip(drawn, found[:20], strict=True):
        again = [outcome for outcome, patient in zip(outcomes, index, strict=True) for _ in range(int(weights[patient]))]
        assert sample == pytest.approx(roc_auc_score([one.label for one in again], [one.score for one in again]))


def test_intervals_of_slices_are_those_of_the_report() -> None:
    outcomes = cohort()
    labels, scores = (np.concatenate([getattr(one, name) for one in outcomes]) for name in ("slice_labels", "slice_scores"))
    units = Units.of("slice", labels=labels, scores=scores, patients=np.repeat([outcome.patient for outcome in outcomes], 4))
    samples = measure(outcomes, POINTS)["slice_auroc"].samples
    assert np.nanpercentile(samples, (2.5, 97.5)) == pytest.approx(auroc(units, clustered=True).ci95)


def test_a_paired_interval_is_narrower_than_that_of_either_side() -> None:
    clean, damaged = measure(cohort(), POINTS)["slice_auroc"], measure(cohort(shift=0.15), POINTS)["slice_auroc"]
    metric = difference(clean, damaged)
    assert metric.ci95 is not None and metric.value is not None
    assert metric.ci95[0] < metric.value < metric.ci95[1] < 0
    assert metric.value == pytest.approx(damaged.value - clean.value)
    apart = np.nanpercentile(damaged.samples - np.random.default_rng(0).permutation(clean.samples), (2.5, 97.5))
    assert np.ptp(metric.ci95) < np.ptp(apart)


def test_no_change_is_no_certainty() -> None:
    metric = differences(measure(cohort(), POINTS), measure(cohort(), POINTS))["dice"]
    assert (metric.value, metric.ci95) == (0, None)
    assert "same in every draw" in metric.note


def test_the_paired_interval_covers_the_true_difference() -> None:
    truth = -0.15
    held = 0
    for seed in range(100):
        metric = difference(
            measure(cohort(seed, patients=40), {})["dice"], measure(cohort(1000 + seed, patients=40, shift=0.15), {})["dice"]
        )
        assert metric.ci95 is not None
        held += metric.ci95[0] <= truth <= metric.ci95[1]
    assert 88 <= held <= 100


def test_one_patient_has_no_interval() -> None:
    one = [replace(outcome, patient="p") for outcome in cohort()]
    metric = differences(measure(one, POINTS), measure(one, POINTS))["scan_auroc"]
    assert metric.ci95 is None and metric.note.startswith("an interval drawn from 1 patient would be too narrow")


@pytest.mark.parametrize(("label", "rate"), [(1, "sensitivity"), (0, "specificity")])
@pytest.mark.parametrize("score", [None, math.nan])
def test_a_score_that_is_no_number_counts_as_the_wrong_answer(label: int, rate: str, score: float | None) -> None:
    gone = [replace(one, score=score, slice_scores=(score,) * 4) if one.label == label else one for one in cohort()]
    found = measure(gone, POINTS)
    assert (found["scan_auroc"].value, found[f"scan_{rate}"].value) == (0, 0)
    assert found[f"slice_{rate}"].value < measure(cohort(), POINTS)[f"slice_{rate}"].value
    assert found["slice_auroc"].value < measure(cohort(), POINTS)["slice_auroc"].value


def test_a_model_that_breaks_down_is_never_better_off() -> None:
    broken = [replace(one, score=None, slice_scores=(), dice=None) if number % 3 else one for number, one in enumerate(cohort())]
    clean, damaged = (measure(outcomes, POINTS) for outcomes in paired(cohort(), broken))
    found = differences(clean, damaged)
    assert len(found) == 7 and all(one.value is not None and one.value < 0 for one in found.values())
    assert {name: (one.n, one.patients) for name, one in clean.items()} == {name: (one.n, one.patients) for name, one in damaged.items()}


def test_what_neither_side_has_is_not_made_up() -> None:
    scores_alone = [replace(one, slice_scores=(), dice=None) for one in cohort()]
    assert paired(scores_alone, scores_alone) == (scores_alone, scores_alone)


def test_few_patients_have_a_difference_without_interval() -> None:
    metric = differences(measure(cohort(patients=9), POINTS), measure(cohort(patients=9, shift=0.1), POINTS))["scan_auroc"]
    assert metric.value is not None and metric.ci95 is None
    assert metric.note == "an interval drawn from 4 patients would be too narrow, none is given"


def test_what_cannot_be_measured_is_absent() -> None:
    healthy = [outcome for outcome in cohort() if outcome.label == 0]
    assert measure(healthy, POINTS).keys() == {"scan_specificity", "slice_specificity"}
    unknown = [replace(outcome, label=None, slice_labels=(), dice=None) for outcome in cohort()]
    assert measure(unknown, POINTS) == {}
    assert "scan_sensitivity" not in measure(cohort(), {"scan": None})


def scored(*scores: float) -> list[Outcome]:
    return [Outcome(f"s{number}", f"p{number}", 1, score, (1,), (score,), None) for number, score in enumerate(scores)]


def test_limits_of_agreement_are_the_bias_and_1_96_deviations() -> None:
    record = agreement(scored(0.1, 0.4, 0.6, 0.9), scored(0.2, 0.6, 0.7, 0.9), unit="scan", threshold=0.5)
    assert record["bias"] == pytest.approx(0.1)
    spread = np.std([0.1, 0.2, 0.1, 0.0], ddof=1)
    assert record["limits_of_agreement"] == pytest.approx([0.1 - 1.96 * spread, 0.1 + 1.96 * spread], abs=1e-4)
    assert record["turned"]["k"] == 1 and record["turned"]["value"] == 0.25


def test_deviation_within_a_case_is_the_root_of_the_mean_variance() -> None:
    repeats = [scored(*(4 * found)) for found in ((0.1, 0.4, 0.6), (0.2, 0.6, 0.6), (0.3, 0.2, 0.6))]
    metric = within_case_deviation(repeats, unit="scan")
    assert metric.value == pytest.approx(np.sqrt(np.mean([0.01, 0.04, 0.0])))
    assert metric.ci95 is not None and metric.ci95[0] <= metric.value <= metric.ci95[1]


def test_a_verdict_that_turns_in_any_repetition_counts_once() -> None:
    repeats = [scored(0.4, 0.4, 0.9), scored(0.6, 0.4, 0.9), scored(0.6, 0.4, 0.9)]
    metric = ever_turned(repeats, unit="slice", threshold=0.5)
    assert (metric.k, metric.n) == (1, 3)


def test_a_case_that_loses_its_score_has_turned_and_is_counted() -> None:
    first, again = scored(0.1, 0.4, 0.6, 0.9), scored(0.1, 0.4, 0.6, 0.9)
    again[0] = replace(again[0], score=None)
    record = agreement(first, again, unit="scan", threshold=0.5)
    assert (record["n"], record["without_score"], record["bias"]) == (3, 1, 0)
    assert (record["turned"]["k"], record["turned"]["n"]) == (1, 4)
    assert (ever_turned([first, again], unit="scan", threshold=0.5).k, within_case_deviation([first, again], unit="scan").n) == (1, 3)


def test_slices_of_a_scan_that_has_lost_them_have_turned() -> None:
    first, again = scored(0.1, 0.9, 0.9), scored(0.1, 0.9, 0.9)
    again[2] = replace(again[2], slice_scores=())
    record = agreement(first, again, unit="slice", threshold=0.5)
    assert (record["without_score"], record["turned"]["k"], record["turned"]["n"]) == (1, 1, 3)


def test_a_case_without_a_score_in_any_repetition_has_no_verdict_to_turn() -> None:
    gone = [replace(scored(0.1)[0], score=None), *scored(0.2, 0.3)[1:]]
    assert ever_turned([gone, gone], unit="scan", threshold=0.5).n == 1


def test_repetitions_without_a_number_are_left_out_of_agreement() -> None:
    gone = [replace(outcome, score=None) for outcome in scored(0.1, 0.2)]
    assert "cannot be measured" in str(agreement(scored(0.1, 0.2), gone, unit="scan", threshold=0.5)["note"])
    assert within_case_deviation([scored(0.1, 0.2), gone], unit="scan").value is None
