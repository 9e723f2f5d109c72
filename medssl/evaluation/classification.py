"""Confusion counts, ROC and precision-recall of binary scores, with intervals.

AUROC is the Mann-Whitney statistic with ties as 1/2; its variance is that of DeLong, 1988, https://doi.org/10.2307/2531595. AUPRC is
average precision, the step sum (not the trapezoid). Where a class has fewer than 10 units, DeLong's interval is too narrow, and where its
variance is 0 (perfect separation) it has none: there Newcombe's score interval serves,
Newcombe, 2006, method 5, https://doi.org/10.1002/sim.2324. Positive means score >= threshold.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.few import FEW, few_of_class
from medssl.evaluation.intervals import (
    BOOTSTRAP,
    Floats,
    RankedUnits,
    bootstrap_interval,
    clustered_proportion,
    index_patients,
    proportion,
    ratio_interval,
)
from medssl.evaluation.metric import Interval, Metric, unmeasured
from medssl.evaluation.resampling import area_samples

NAMES = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "precision", "recall", "f1", "auroc", "auprc")

NEWCOMBE = "Newcombe score"
_Z95 = 1.959963984540054
_SMALL = 50
_NEAR_ONE = 0.95
_BAYES = "Bayes, log interval of the likelihood ratio"


@dataclass(frozen=True, eq=False)
class Units:
    """Labelled scores of one unit of analysis, those without a finite score left out.

    Args:
        unit: `patient`, `scan`, `slice`.
        labels: (N,) 1 positive, 0 negative.
        scores: (N,) finite.
        patients: (N,) whom each unit belongs to.
        excluded: Units whose score was not finite.
    """

    unit: str
    labels: NDArray[np.intp]
    scores: Floats
    patients: NDArray[np.generic]
    excluded: int

    @classmethod
    def of(cls, unit: str, *, labels: ArrayLike, scores: ArrayLike, patients: ArrayLike) -> "Units":
        """Units of any arrays of one length; units with a score that is not finite are left out and counted."""
        score = np.asarray(scores, dtype=float)
        kept = np.isfinite(score)
        return cls(unit, np.asarray(labels, dtype=np.intp)[kept], score[kept], np.asarray(patients)[kept], int((~kept).sum()))

    @property
    def n_positive(self) -> int:
        """How many are positive."""
        return int(self.labels.sum())

    @property
    def n_negative(self) -> int:
        """How many are negative."""
        return len(self.labels) - self.n_positive

    @property
    def missing(self) -> str:
        """The class without which curves cannot be drawn, empty when both are there."""
        if len(self.labels) == 0:
            return f"no {self.unit} with a known answer and a score"
        if self.n_positive == 0:
            return f"no positive {self.unit}"
        return f"no negative {self.unit}" if self.n_negative == 0 else ""


@dataclass(frozen=True)
class Counts:
    """A confusion table."""

    tp: int
    fn: int
    fp: int
    tn: int

    @classmethod
    def of(cls, labels: ArrayLike, called: ArrayLike) -> "Counts":
        """The table of true labels and calls, both (N,) of 0 and 1."""
        truth, call = np.asarray(labels, dtype=bool), np.asarray(called, dtype=bool)
        return cls(int((truth & call).sum()), int((truth & ~call).sum()), int((~truth & call).sum()), int((~truth & ~call).sum()))

    @property
    def youden(self) -> float | None:
        """Sensitivity + specificity - 1, -1 to 1; None without both classes."""
        if not (self.tp + self.fn) * (self.tn + self.fp):
            return None
        return self.tp / (self.tp + self.fn) + self.tn / (self.tn + self.fp) - 1

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of sensitivity and specificity; None without both classes."""
        return None if self.youden is None else (self.youden + 1) / 2

    @property
    def mcc(self) -> float | None:
        """Matthews correlation, -1 to 1; None when a row or column of the table is empty."""
        product = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return (self.tp * self.tn - self.fp * self.fn) / math.sqrt(product) if product else None


def assess(units: Units, *, threshold: float | None, clustered: bool) -> dict[str, Metric]:
    """The ten numbers of a unit.

    Args:
        units: Labels and scores.
        threshold: Locked threshold; without one only the two areas are measured.
        clustered: Units of one patient hang together (slices): intervals by the bootstrap of patients, Wilson beside them.
    """
    found = rates(units, threshold=threshold, clustered=clustered)
    if threshold is None or units.missing:
        f1 = unmeasured(units.missing or _no_threshold(units.unit))
    else:
        f1 = f1_score(units.labels, units.scores >= threshold, patients=units.patients)
    twins = {"precision": found["ppv"], "recall": found["sensitivity"]}
    return found | twins | {"f1": f1, "auroc": auroc(units, clustered=clustered), "auprc": auprc(units)}


def _no_threshold(unit: str) -> str:
    return f"no threshold was locked for the unit {unit}"


def rates(units: Units, *, threshold: float | None, clustered: bool) -> dict[str, Metric]:
    """Sensitivity, specificity, PPV, NPV and accuracy, the latter three of both classes alone; arguments as in `assess`."""
    if threshold is None:
        return dict.fromkeys(NAMES[:5], unmeasured(_no_threshold(units.unit)))
    called, truth, unit = units.scores >= threshold, units.labels.astype(bool), units.unit
    parts = {
        "sensitivity": (called, truth, f"no positive {unit}"),
        "specificity": (~called, ~truth, f"no negative {unit}"),
        "ppv": (truth, called, f"no {unit} was called positive"),
        "npv": (~truth, ~called, f"no {unit} was called negative"),
        "accuracy": (called == truth, np.ones_like(truth), f"no {unit} with a known answer and a score"),
    }
    if units.missing:
        return {name: _of_one_class(units, name, part, clustered=clustered) for name, part in parts.items()}
    return {name: _share(units, hit & among, among, empty, clustered=clustered) for name, (hit, among, empty) in parts.items()}


def _of_one_class(units: Units, name: str, part: tuple[NDArray[np.bool_], NDArray[np.bool_], str], *, clustered: bool) -> Metric:
    """A rate without the other class: the one that is there says what calling everything alike would reach, the others mean nothing."""
    if name not in ("sensitivity", "specificity"):
        return unmeasured(units.missing)
    hit, among, empty = part
    found = _share(units, hit & among, among, empty, clustered=clustered)
    if found.value is None:
        return found
    call = "positive" if name == "sensitivity" else "negative"
    said = f"{units.missing}: calling every {units.unit} {call} would give 1.000"
    return replace(found, note="; ".join(filter(None, (found.note, said))))


def _share(units: Units, hit: NDArray[np.bool_], among: NDArray[np.bool_], empty: str, *, clustered: bool) -> Metric:
    if not clustered or not among.any():
        return proportion(int(hit.sum()), int(among.sum()), empty=empty)
    index, count = index_patients(units.patients)
    hits, trials = (np.bincount(index, weights=part, minlength=count) for part in (hit, among))
    return clustered_proportion(hits, trials, empty=empty)


def f1_score(labels: ArrayLike, called: ArrayLike, *, patients: ArrayLike) -> Metric:
    """F1 = 2 TP / (2 TP + FP + FN), with the bootstrap over patients."""
    truth, call = np.asarray(labels, dtype=bool), np.asarray(called, dtype=bool)
    doubled, total = 2.0 * (truth & call), truth.astype(float) + call
    if not total.any():
        return unmeasured("nothing is positive and nothing was called positive", method=BOOTSTRAP)
    index, count = index_patients(patients)
    hits, trials = (np.bincount(index, weights=part, minlength=count).astype(np.float64) for part in (doubled, total))
    patients = int((trials > 0).sum())
    interval, method, note = ratio_interval(hits, trials, patients=patients)
    k, n = round(float(hits.sum())), round(float(trials.sum()))
    note = "; ".join(filter(None, ("k = 2 TP, n = 2 TP + FP + FN", note)))
    return Metric(k / n, interval, method, k, n, note, {"n_patients": patients})


def auroc(units: Units, *, clustered: bool = False) -> Metric:
    """Area under the ROC curve; `k` positives of `n`.

    The interval is DeLong's (on the logit scale above 0.95 or below 50 units), Newcombe's where a class has fewer than 10 units, or the
    bootstrap over patients when `clustered`.
    """
    if units.missing:
        return unmeasured(units.missing, method=BOOTSTRAP if clustered else "DeLong", n=len(units.labels))
    area, variance = delong(units.labels, units.scores)
    k, n = units.n_positive, len(units.labels)
    if clustered:
        interval, method, note = _clustered_area(units, area)
        return Metric(area, interval, method, k, n, note)
    if min(k, n - k) < FEW:
        return Metric(area, newcombe(area, k, n - k), NEWCOMBE, k, n, few_of_class(min(k, n - k), units.unit))
    if variance < 1e-15:
        return Metric(area, newcombe(area, k, n - k), f"{NEWCOMBE} (DeLong's variance is 0)", k, n)
    if area > _NEAR_ONE or n < _SMALL:
        return Metric(area, _logit_interval(area, variance), "DeLong (logit)", k, n)
    half = _Z95 * math.sqrt(variance)
    return Metric(area, (max(0.0, area - half), min(1.0, area + half)), "DeLong", k, n)


def _clustered_area(units: Units, area: float) -> tuple[Interval | None, str, str]:
    samples = area_samples(units.labels, units.scores, units.patients)
    holders = [len(np.unique(units.patients[units.labels == label])) for label in (1, 0)]
    samples = samples[np.isfinite(samples)]
    if min(holders) >= FEW and np.ptp(samples) < 1e-12:
        return newcombe(area, holders[0], holders[1]), "Newcombe score over patients (the bootstrap has no spread)", ""
    return bootstrap_interval(samples, value=area, patients=min(holders))


def auprc(units: Units) -> Metric:
    """Average precision with the bootstrap over patients; `baseline` is the prevalence, what chance gives."""
    if units.missing:
        return unmeasured(units.missing, method=BOOTSTRAP, n=len(units.labels))
    ranked = RankedUnits(units.labels, units.scores)
    value = float(_average_precision(*ranked.cumulated()))
    baseline = units.n_positive / len(units.labels)
    beside = {"baseline": baseline}
    samples = ranked.bootstrap(units.patients, _average_precision)
    patients = min(len(np.unique(units.patients[units.labels == label])) for label in (0, 1))
    interval, method, note = bootstrap_interval(samples, value=value, patients=patients)
    return Metric(value, interval, method, units.n_positive, len(units.labels), note, beside)


def delong(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """AUROC and DeLong's variance of it, by midranks; a class of one member adds nothing to the variance."""
    by_positive, by_negative = placements(labels, scores)
    spread = sum(float(part.var(ddof=1)) / len(part) for part in (by_positive, by_negative) if len(part) > 1)
    return float(by_positive.mean()), spread


def placements(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, and for each negative the share of positives above it; ties count 1/2.

    The structural components V10 and V01 of DeLong, by the midranks of Sun and Xu, 2014, https://doi.org/10.1109/LSP.2014.2337313.
    """
    from scipy.stats import rankdata

    label, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    positive, negative = score[label], score[~label]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    return (ranks[:m] - rankdata(positive)) / n, 1 - (ranks[m:] - rankdata(negative)) / m


def newcombe(area: float, positives: int, negatives: int) -> Interval:
    """Newcombe's score interval of an AUROC of so many positives and negatives; it has width at 0 and at 1."""
    from scipy.optimize import brentq

    effective = (positives + negatives) / 2 - 1

    def excess(true: float) -> float:
        spread = true * (1 - true) / (positives * negatives) * (1 + effective * ((1 - true) / (2 - true) + true / (1 + true)))
        return float((area - true) ** 2 - _Z95**2 * spread)

    low = float(brentq(excess, 0.0, area - 1e-9)) if area > 1e-6 else 0.0
    high = float(brentq(excess, area + 1e-9, 1.0)) if area < 1 - 1e-6 else 1.0
    return low, high


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> dict[str, list[float | None]]:
    """Every point of the ROC curve: `fpr`, `tpr`, `thresholds`; the first threshold is null (nothing called positive)."""
    ranked = RankedUnits(labels, scores)
    hits, alarms = (np.append(0.0, part) for part in ranked.cumulated())
    fpr, tpr = (part / part[-1] if part[-1] else np.zeros_like(part) for part in (alarms, hits))
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "thresholds": [None, *ranked.thresholds.tolist()]}


def pr_curve(labels: ArrayLike, scores: ArrayLike) -> dict[str, list[float]]:
    """Every point of the precision-recall curve: `recall`, `precision`, `thresholds`."""
    ranked = RankedUnits(labels, scores)
    hits, alarms = ranked.cumulated()
    recall = hits / hits[-1] if len(hits) and hits[-1] else np.zeros_like(hits)
    return {"recall": recall.tolist(), "precision": (hits / (hits + alarms)).tolist(), "thresholds": ranked.thresholds.tolist()}


def likelihood_ratios(counts: Counts) -> dict[str, Metric]:
    """Positive and negative likelihood ratio with Simel's log interval, 1991, https://doi.org/10.1016/0895-4356(91)90128-V."""
    n = counts.tp + counts.fn + counts.fp + counts.tn
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    pairs = {"lr_positive": (counts.tp, counts.fp), "lr_negative": (counts.fn, counts.tn)}
    return {name: _ratio_of_shares(a, positives, b, negatives, n=n) for name, (a, b) in pairs.items()}


def _ratio_of_shares(a: int, positives: int, b: int, negatives: int, *, n: int) -> Metric:
    if 0 in (a, b, positives, negatives):
        return unmeasured("a cell of the confusion table is 0", method="log (Simel)", n=n)
    ratio = (a / positives) / (b / negatives)
    half = _Z95 * math.sqrt(1 / a - 1 / positives + 1 / b - 1 / negatives)
    return Metric(ratio, (ratio * math.exp(-half), ratio * math.exp(half)), "log (Simel)", a, n)


def predictive_values(sensitivity: float, specificity: float, *, prevalence: float) -> tuple[float | None, float | None]:
    """PPV and NPV that these rates give at another prevalence, by Bayes."""
    hit, alarm = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    miss, quiet = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return (hit / (hit + alarm) if hit + alarm else None), (quiet / (quiet + miss) if quiet + miss else None)


def predictive_values_at(counts: Counts, *, prevalence: float) -> dict[str, Metric]:
    """PPV and NPV at another prevalence, by Bayes, with the interval of the likelihood ratio carried through the odds.

    That is the logit interval of Mercaldo, Lau and Zhou, 2007, https://doi.org/10.1002/sim.2677; where a cell of the table is 0, 1/2 is
    added to every cell for the interval alone.

    Args:
        counts: The table at the locked threshold.
        prevalence: Share with lesion, above 0 and below 1.
    """
    n = counts.tp + counts.fn + counts.fp + counts.tn
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    if not positives or not negatives:
        why = "sensitivity and specificity are needed, and one class is missing"
        return {name: unmeasured(why, method=_BAYES, n=n) for name in ("ppv", "npv")}
    ppv, npv = predictive_values(counts.tp / positives, counts.tn / negatives, prevalence=prevalence)
    odds = prevalence / (1 - prevalence)
    sides = {
        "ppv": (ppv, counts.tp, positives, counts.fp, negatives, odds),
        "npv": (npv, counts.tn, negatives, counts.fn, positives, 1 / odds),
    }
    added = 0.5 if 0 in (counts.tp, counts.fn, counts.fp, counts.tn) else 0.0
    return {name: _carried(*side, added=added, n=n) for name, side in sides.items()}


def _carried(value: float | None, right: int, own: int, wrong: int, other: int, odds: float, *, added: float, n: int) -> Metric:
    """A predictive value: odds before the call times the ratio of the shares `right` / `own` and `wrong` / `other` that get the call."""
    if value is None:
        return unmeasured("no call of this kind was made", method=_BAYES, n=n)
    a, b, m, k = right + added, wrong + added, own + 2 * added, other + 2 * added
    ratio, half = odds * (a / m) / (b / k), _Z95 * math.sqrt(1 / a - 1 / m + 1 / b - 1 / k)
    low, high = (ratio * math.exp(side * half) for side in (-1, 1))
    ends = (min(value, low / (1 + low)), max(value, high / (1 + high)))
    return Metric(value, ends, _BAYES, right, n, "1/2 was added to every cell for the interval" if added else "")


def _logit_interval(area: float, variance: float) -> Interval:
    centre = math.log(area / (1 - area))
    half = _Z95 * math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-(centre + side * half))) for side in (-1, 1))
    return low, high


def _average_precision(hits: Floats, alarms: Floats) -> Floats:
    """(B,) step sum of precision over recall of (B, T) counts; NaN without a positive."""
    called = hits + alarms
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    total = hits[..., -1]
    area = (np.diff(hits, axis=-1, prepend=0.0) * precision).sum(axis=-1)
    return np.asarray(np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0))
