"""How much worse a model gets under damage, and how well it agrees with itself on a scan repeated.

Damage is measured as a paired difference: the same scans, damaged and clean, in the same bootstrap draws of patients. Repeated scans
are described by the deviation within a case (Bland and Altman, 1996, https://doi.org/10.1136/bmj.312.7047.1654), the limits of agreement
(Bland and Altman, 1986, https://doi.org/10.1016/S0140-6736(86)90837-8) and the share of verdicts that turn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.few import FEW, no_interval
from medssl.evaluation.intervals import BOOTSTRAP, Floats, clustered_proportion, index_patients, patient_weights
from medssl.evaluation.metric import Metric, unmeasured
from medssl.evaluation.resampling import RankedPairs

NAMES = {
    "scan_auroc": "AUROC of scans",
    "scan_sensitivity": "sensitivity of scans at the locked threshold",
    "scan_specificity": "specificity of scans at the locked threshold",
    "slice_auroc": "AUROC of slices",
    "slice_sensitivity": "sensitivity of slices at the locked threshold",
    "slice_specificity": "specificity of slices at the locked threshold",
    "dice": "mean Dice of scans with lesion",
}
PAIRED = f"paired difference, {BOOTSTRAP}"
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Outcome:
    """What a model says of one scan under one condition, beside the truth.

    Args:
        scan_id: The scan.
        patient: Whose scan.
        label: 1 with lesion, 0 without, None where unknown.
        score: Suspicion of the scan, 0 to 1; None where the model gave no number.
        slice_labels: (K,) 1 where a slice truly holds lesion; empty where unknown.
        slice_scores: (K,) suspicion of each slice; a value that is no number is None.
        dice: Of the predicted mask, for scans that truly have lesion; None where there is no mask to compare.
    """

    scan_id: str
    patient: str
    label: int | None
    score: float | None
    slice_labels: tuple[int, ...]
    slice_scores: tuple[float | None, ...]
    dice: float | None

    @property
    def is_scored(self) -> bool:
        """Whether the scan has a score that is a number."""
        return self.score is not None and math.isfinite(self.score)

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Self:
        """Rebuild from JSON, where tuples have become lists."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Measured:
    """A number of a set of scans with its bootstrap draws.

    Args:
        value: NaN where it cannot be measured.
        samples: (draws,) the same number when patients are drawn again.
        k: Units that count.
        n: Units in all.
        patients: Patients that they are of; of an area those that hold the rarer class.
    """

    value: float
    samples: Floats
    k: int
    n: int
    patients: int


@dataclass(frozen=True, eq=False)
class _Scored:
    """Units of one kind: labels (N,), scores (N,) and patients (N,) as indices."""

    labels: NDArray[np.bool_]
    scores: Floats
    patients: NDArray[np.intp]


def measure(outcomes: Sequence[Outcome], thresholds: Mapping[str, float | None]) -> dict[str, Measured]:
    """The numbers of `NAMES` that can be measured.

    A score that is no number counts as the wrong answer (no suspicion of a positive, the highest of a negative), so that a model that
    breaks down is never better off for it.

    Args:
        outcomes: Of the same scans, in the same order, for every condition that is to be compared.
        thresholds: Locked threshold of `scan` and `slice`, None where there is none.
    """
    index, count = index_patients([outcome.patient for outcome in outcomes])
    blocks = list(patient_weights(count))
    found: dict[str, Measured] = {}
    for unit, units in (("scan", _scans(outcomes, index)), ("slice", _slices(outcomes, index))):
        found[f"{unit}_auroc"] = _area(units, blocks)
        threshold = thresholds.get(unit)
        if threshold is None:
            continue
        called = units.scores >= threshold
        found[f"{unit}_sensitivity"] = _share(called & units.labels, units.labels, units.patients, blocks)
        found[f"{unit}_specificity"] = _share(~called & ~units.labels, ~units.labels, units.patients, blocks)
    known = np.array([outcome.dice is not None for outcome in outcomes], dtype=bool)
    dice = np.array([outcome.dice or 0.0 for outcome in outcomes])
    found["dice"] = _share(dice, known, index, blocks)
    return {name: one for name, one in found.items() if math.isfinite(one.value)}


def paired(clean: Sequence[Outcome], damaged: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Outcomes of the same scans in one order, made to rest on the same units: what one side alone has counts against the other.

    A Dice that one side lacks is 0 there, and slices that one side lacks have no score there.
    """
    pairs = [(_filled(one, other), _filled(other, one)) for one, other in zip(clean, damaged, strict=True)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _filled(outcome: Outcome, twin: Outcome) -> Outcome:
    if outcome.dice is None and twin.dice is not None:
        outcome = replace(outcome, dice=0.0)
    if _has_slices(twin) and not _has_slices(outcome):
        outcome = replace(outcome, slice_labels=twin.slice_labels, slice_scores=(None,) * len(twin.slice_labels))
    return outcome


def difference(clean: Measured, damaged: Measured) -> Metric:
    """Damaged minus clean on the same draws of patients; both values stand beside it."""
    beside = {"clean": clean.value, "damaged": damaged.value, "n_patients": clean.patients}
    value, samples = damaged.value - clean.value, damaged.samples - clean.samples
    samples = samples[np.isfinite(samples)]
    if clean.patients < FEW:
        return Metric(value, None, PAIRED, damaged.k, damaged.n, no_interval(clean.patients), beside)
    if samples.size == 0 or np.ptp(samples) < 1e-12:
        return Metric(value, None, PAIRED, damaged.k, damaged.n, "no interval: the same in every draw of patients", beside)
    low, high = np.percentile(samples, (2.5, 97.5))
    return Metric(value, (float(low), float(high)), PAIRED, damaged.k, damaged.n, "", beside)


def differences(clean: Mapping[str, Measured], damaged: Mapping[str, Measured]) -> dict[str, Metric]:
    """The differences of all numbers that both conditions have."""
    return {name: difference(clean[name], damaged[name]) for name in NAMES if name in clean and name in damaged}


def agreement(clean: Sequence[Outcome], again: Sequence[Outcome], *, unit: str, threshold: float | None) -> dict[str, object]:
    """How the scores of one repetition differ from the first ones: bias, limits of agreement, and verdicts that turned.

    A case that has a score in one of the two alone is in neither bias nor limits; it counts as turned and is counted in `without_score`.

    Args:
        clean: The first scores.
        again: The scores of the same scans repeated, in the same order.
        unit: `scan` or `slice`.
        threshold: The locked one, None where there is none.
    """
    scores, patients = _repeated_scores([clean, again], unit)
    both = np.isfinite(scores).all(axis=0)
    counts: dict[str, object] = {"n": int(both.sum()), "without_score": int((~both).sum())}
    if both.sum() < 2:
        return counts | {"note": f"cannot be measured: fewer than 2 {unit}s with both scores"}
    change = np.diff(scores[:, both], axis=0)
    bias, spread = float(change.mean()), float(change.std(ddof=1))
    limits = [bias - _Z95 * spread, bias + _Z95 * spread]
    record = counts | {"bias": bias, "limits_of_agreement": limits, "sd_of_differences": spread}
    if threshold is None:
        return record | {"turned": unmeasured(f"no threshold was locked for the unit {unit}").to_json()}
    return record | {"turned": _turned(scores, patients, unit, threshold).to_json()}


def within_case_deviation(repeats: Sequence[Sequence[Outcome]], *, unit: str) -> Metric:
    """Deviation of the score within a case over all repetitions, the root of the mean variance, with the bootstrap over patients.

    Args:
        repeats: (R, N) outcomes of N scans, R >= 2 times, in the same order.
        unit: `scan` or `slice`.
    """
    scores, patients = _repeated_scores(repeats, unit)
    kept = np.isfinite(scores).all(axis=0)
    scores, patients = scores[:, kept], patients[kept]
    if len(repeats) < 2 or scores.shape[1] == 0:
        return unmeasured(f"no {unit} was scored twice", method=BOOTSTRAP)
    variance = scores.var(axis=0, ddof=1)
    index, count = index_patients(patients)
    found = _share(variance, np.ones(len(variance), dtype=bool), index, list(patient_weights(count)))
    value, n = math.sqrt(found.value), scores.shape[1]
    beside = {"repetitions": len(repeats), "n_patients": count}
    if count < FEW or np.ptp(found.samples) < 1e-15:
        return Metric(value, None, BOOTSTRAP, n, n, no_interval(count) or "no interval: all cases alike", beside)
    low, high = np.sqrt(np.percentile(found.samples, (2.5, 97.5)))
    return Metric(value, (float(low), float(high)), BOOTSTRAP, n, n, "", beside)


def ever_turned(repeats: Sequence[Sequence[Outcome]], *, unit: str, threshold: float) -> Metric:
    """Share of cases whose verdict is not the same in all repetitions; one without a score in some of them is not the same."""
    return _turned(*_repeated_scores(repeats, unit), unit, threshold)


def _turned(scores: Floats, patients: NDArray[np.str_], unit: str, threshold: float) -> Metric:
    """Share of cases (N,) whose verdicts on scores (R, N) differ; no score is a verdict of its own."""
    verdicts = np.where(np.isfinite(scores), scores >= threshold, -1)
    turned = (verdicts != verdicts[0]).any(axis=0)
    index, count = index_patients(patients)
    hits, trials = (np.bincount(index, weights=part, minlength=count) for part in (turned, np.ones(len(turned))))
    return clustered_proportion(hits, trials, empty=f"no {unit} was scored twice")


def _scans(outcomes: Sequence[Outcome], index: NDArray[np.intp]) -> _Scored:
    known = [(outcome, patient) for outcome, patient in zip(outcomes, index, strict=True) if outcome.label is not None]
    return _Scored(
        np.array([bool(outcome.label) for outcome, _ in known], dtype=bool),
        np.array([_number(outcome.score, outcome.label) for outcome, _ in known], dtype=float),
        np.array([patient for _, patient in known], dtype=np.intp),
    )


def _slices(outcomes: Sequence[Outcome], index: NDArray[np.intp]) -> _Scored:
    known = [(outcome, patient) for outcome, patient in zip(outcomes, index, strict=True) if _has_slices(outcome)]
    return _Scored(
        np.array([bool(label) for outcome, _ in known for label in outcome.slice_labels], dtype=bool),
        np.array(
            [_number(*one) for outcome, _ in known for one in zip(outcome.slice_scores, outcome.slice_labels, strict=True)], dtype=float
        ),
        np.array([patient for outcome, patient in known for _ in outcome.slice_labels], dtype=np.intp),
    )


def _has_slices(outcome: Outcome) -> bool:
    return len(outcome.slice_labels) == len(outcome.slice_scores) > 0


def _number(score: float | None, label: int | None) -> float:
    """The score; where there is none, less than any score of a positive and more than any of a negative."""
    if score is not None and math.isfinite(score):
        return float(score)
    return -math.inf if label else math.inf


def _share(count: Floats | NDArray[np.bool_], among: NDArray[np.bool_], patients: NDArray[np.intp], blocks: Sequence[Floats]) -> Measured:
    """Sum of `count` (N,) over `among` (N,), pooled over patients."""
    size = blocks[0].shape[1]
    above, below = (np.bincount(patients, weights=part, minlength=size) for part in (np.where(among, count, 0.0), among.astype(float)))
    samples = np.concatenate([_ratio(block @ above, block @ below) for block in blocks])
    value = float(above.sum() / below.sum()) if below.any() else math.nan
    return Measured(value, samples, round(float(above.sum())), int(among.sum()), int((below > 0).sum()))


def _area(units: _Scored, blocks: Sequence[Floats]) -> Measured:
    """AUROC, ties as 1/2; NaN without both classes."""
    positives = int(units.labels.sum())
    patients = min(len(np.unique(units.patients[units.labels == label])) for label in (False, True))
    if positives in (0, len(units.labels)):
        return Measured(math.nan, np.full(sum(map(len, blocks)), math.nan), positives, len(units.labels), patients)
    ranked = RankedPairs(units.labels, units.scores, units.patients)
    (value,) = ranked.areas(np.ones((1, blocks[0].shape[1])))
    return Measured(float(value), np.concatenate([ranked.areas(block) for block in blocks]), positives, len(units.labels), patients)


def _repeated_scores(repeats: Sequence[Sequence[Outcome]], unit: str) -> tuple[Floats, NDArray[np.str_]]:
    """(R, N) scores, NaN where there is none, and (N,) patients of the units that have a number in some repetition."""
    rows, patients = [], []
    for same in zip(*repeats, strict=True):
        parts = [(one.score,) if unit == "scan" else one.slice_scores for one in same]
        most = max(map(len, parts))
        rows += [*zip(*(part if len(part) == most else (None,) * most for part in parts), strict=True)]
        patients += [same[0].patient] * most
    scores = np.array(rows, dtype=float).reshape(len(rows), len(repeats)).T  # None becomes NaN
    kept = np.isfinite(scores).any(axis=0)
    return scores[:, kept], np.array(patients, dtype=str)[kept]


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
