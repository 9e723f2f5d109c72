"""Do scores mean what they say: reliability, ECE, Brier, and the slope and intercept of Cox, 1958.

ECE here is over bins of equal width, closed on the right, of P(lesion) against the observed frequency, weighted by their size.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.classification import Units
from medssl.evaluation.intervals import Floats, bootstrap_interval, index_patients, patient_weights, wilson
from medssl.evaluation.metric import Interval, Metric, unmeasured

DEFINITION = "probability of lesion against observed frequency, bins of equal width closed on the right, weighted by their size"
_Z95 = 1.959963984540054
_EDGE = 1e-6  # scores of exactly 0 or 1 have no logit
_DIVERGED = 50.0


@dataclass(frozen=True)
class Bin:
    """Units whose score lies in (low, high]."""

    low: float
    high: float
    n: int
    mean_score: float | None
    observed: float | None
    ci95: Interval | None


def reliability(labels: ArrayLike, scores: ArrayLike, *, bins: int = 10) -> list[Bin]:
    """The reliability table; an empty bin has no numbers."""
    label, score = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    index = _bin_index(score, bins)
    edges = np.linspace(0, 1, bins + 1)
    return [_bin(label[index == b], score[index == b], float(edges[b]), float(edges[b + 1])) for b in range(bins)]


def _bin(labels: Floats, scores: Floats, low: float, high: float) -> Bin:
    if len(labels) == 0:
        return Bin(low, high, 0, None, None, None)
    return Bin(low, high, len(labels), float(scores.mean()), float(labels.mean()), wilson(labels.sum(), len(labels)))


def calibration_errors(labels: ArrayLike, scores: ArrayLike, *, bins: int = 10) -> tuple[float, float]:
    """Expected and maximum calibration error."""
    table = [one for one in reliability(labels, scores, bins=bins) if one.n]
    gaps = np.array([abs((one.mean_score or 0.0) - (one.observed or 0.0)) for one in table])
    sizes = np.array([one.n for one in table], dtype=float)
    return float((gaps * sizes).sum() / sizes.sum()), float(gaps.max())


def assess(units: Units, *, bins: int = 10) -> dict[str, Metric]:
    """ECE, MCE, Brier, slope, intercept and calibration in the large of probabilities."""
    names = ("ece", "mce", "brier", "slope", "intercept", "in_the_large")
    n = len(units.labels)
    if n == 0:
        return {name: unmeasured(units.missing) for name in names}
    ece, mce = calibration_errors(units.labels, units.scores, bins=bins)
    errors = {
        "ece": _ece(units, ece, bins=bins),
        "mce": Metric(mce, None, "none", units.n_positive, n, "the worst bin; it rests on few units"),
        "brier": _brier(units),
    }
    return errors | _recalibration(units)


def _ece(units: Units, value: float, *, bins: int) -> Metric:
    index, patients = index_patients(units.patients)
    cells = index * bins + _bin_index(units.scores, bins)
    gaps = np.bincount(cells, weights=units.scores - units.labels, minlength=patients * bins).reshape(patients, bins)
    sizes = np.bincount(index, minlength=patients).astype(float)
    samples = np.concatenate([np.abs(block @ gaps).sum(axis=1) / (block @ sizes) for block in patient_weights(patients)])
    interval, method, _ = bootstrap_interval(samples, value=value, patients=patients)
    note = f"{bins} bins; biased upwards when units are few"
    return Metric(value, interval, method, units.n_positive, len(units.labels), note)


def _brier(units: Units) -> Metric:
    index, patients = index_patients(units.patients)
    errors = np.bincount(index, weights=(units.scores - units.labels) ** 2, minlength=patients)
    sizes = np.bincount(index, minlength=patients).astype(float)
    samples = np.concatenate([(block @ errors) / (block @ sizes) for block in patient_weights(patients)])
    value = float(errors.sum() / sizes.sum())
    interval, method, note = bootstrap_interval(samples, value=value, patients=patients)
    return Metric(value, interval, method, units.n_positive, len(units.labels), note)


def _recalibration(units: Units) -> dict[str, Metric]:
    """Slope and intercept of a logistic regression on the logit of the score; ideal values 1 and 0."""
    names = ("slope", "intercept", "in_the_large")
    if units.missing:
        return {name: unmeasured(units.missing, method="Wald", n=len(units.labels)) for name in names}
    score = np.clip(units.scores, _EDGE, 1 - _EDGE)
    logit = np.log(score / (1 - score))
    ones = np.ones_like(logit)
    joint = _logistic(np.column_stack([ones, logit]), units.labels, offset=np.zeros_like(logit))
    large = _logistic(ones[:, None], units.labels, offset=logit)
    fits = {"slope": (joint, 1), "intercept": (joint, 0), "in_the_large": (large, 0)}
    return {name: _coefficient(units, fit, which) for name, (fit, which) in fits.items()}


def _coefficient(units: Units, fit: tuple[Floats, Floats] | None, which: int) -> Metric:
    k, n = units.n_positive, len(units.labels)
    if fit is None:
        return unmeasured("the scores separate the classes, or are all alike, so that no curve can be fitted", method="Wald", n=n)
    value, half = float(fit[0][which]), _Z95 * math.sqrt(float(fit[1][which]))
    return Metric(value, (value - half, value + half), "Wald", k, n)


def _logistic(design: Floats, labels: NDArray[np.intp], *, offset: Floats) -> tuple[Floats, Floats] | None:
    """Coefficients and their variances by Newton's method; None when there is no finite optimum."""
    coefficients = np.zeros(design.shape[1])
    for _ in range(100):
        linear = np.clip(design @ coefficients + offset, -_DIVERGED, _DIVERGED)
        probability = 1 / (1 + np.exp(-linear))
        information = design.T @ (design * (probability * (1 - probability))[:, None])
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (labels - probability))
        coefficients = coefficients + step
        if np.abs(coefficients).max() > _DIVERGED:
            return None
        if np.abs(step).max() < 1e-10:
            return coefficients, np.diag(np.linalg.inv(information))
    return None


def _bin_index(scores: Floats, bins: int) -> NDArray[np.intp]:
    return np.clip(np.ceil(scores * bins).astype(np.intp) - 1, 0, bins - 1)
