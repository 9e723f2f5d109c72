"""Do scores mean what they say: reliability, ECE, Brier, and the slope and intercept of Cox, 1958.

ECE here is over bins of equal width, closed on the right, of P(lesion) against the observed frequency, weighted by their size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medssl.evaluation.classification import Units
from medssl.evaluation.intervals import Floats, bootstrap_interval, index_patients, patient_weights, wilson
from medssl.evaluation.metric import Interval, Metric, unmeasured

DEFINITION = "probability of lesion against observed frequency, bins of equal width closed on the right, weighted by their size"
_Z95 = 1.959963984540054
_EDGE = 1e-6  # scores of exactly 0 or 1 have no logit
_DIVERGED = 50.0
_LEAST_OF_A_CLASS = 5
_SHARPEST, _FLATTEST = 0.1, 10.0


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
        "ece": Metric(ece, None, "none", units.n_positive, n, f"{bins} bins; biased upwards when units are few, as its bootstrap would be"),
        "mce": Metric(mce, None, "none", units.n_positive, n, "the worst bin; it rests on few units"),
        "brier": _brier(units),
    }
    return errors | _recalibration(units)


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
    logit = _logit(units.scores)
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


@dataclass(frozen=True)
class Temperature:
    """One number that makes scores less (above 1) or more extreme (below 1), and leaves their order as it is.

    Guo et al., "On calibration of modern neural networks", 2017, section 4.2, https://arxiv.org/abs/1706.04599: the logit is divided by it.

    Args:
        temperature: 1 where none could be fitted.
        note: Why none could be fitted, else empty.
        n: Units it was fitted on.
        n_positive: Positive ones among them.
        loss_before: Mean cross entropy of the scores as they were.
        loss_after: Of the calibrated scores.
    """

    temperature: float
    note: str
    n: int
    n_positive: int
    loss_before: float | None
    loss_after: float | None


def fit_temperature(labels: ArrayLike, scores: ArrayLike) -> Temperature:
    """The temperature with the least cross entropy, between 0.1 and 10.

    Args:
        labels: (N,) 1 positive, 0 negative.
        scores: (N,) probabilities; those that are not finite are left out.
    """
    kept = np.isfinite(np.asarray(scores, dtype=float))
    label, score = np.asarray(labels, dtype=float)[kept], np.asarray(scores, dtype=float)[kept]
    logit = _logit(score)
    return _fitted(
        label,
        slope=lambda factor: _slope(label, logit, factor),
        loss=lambda temperature: _cross_entropy(label, tempered(score, temperature)),
    )


def fit_class_temperature(classes: ArrayLike, probabilities: ArrayLike, *, positive: Sequence[int]) -> Temperature:
    """The same for classes of which one holds: the logits of all of them are divided, for the least cross entropy of classes.

    Args:
        classes: (N,) index of the class of each unit.
        probabilities: (C, N) of which each unit has a sum of 1; units with one that is not finite are left out.
        positive: Indices of the classes that count as positive.
    """
    kept = np.isfinite(np.asarray(probabilities, dtype=float)).all(axis=0)
    index, probability = np.asarray(classes, dtype=np.intp)[kept], np.asarray(probabilities, dtype=float)[:, kept]
    logs, units = np.log(np.clip(probability, _EDGE, 1)), np.arange(len(index))

    def slope(factor: float) -> float:
        expected = (tempered_classes(np.exp(logs), 1 / factor) * logs).sum(axis=0)
        return float((expected - logs[index, units]).mean())

    def loss(temperature: float) -> float:
        return float(-np.log(np.clip(tempered_classes(probability, temperature)[index, units], _EDGE, 1)).mean())

    return _fitted(np.isin(index, positive).astype(float), slope=slope, loss=loss)


def _fitted(label: Floats, *, slope: Callable[[float], float], loss: Callable[[float], float]) -> Temperature:
    """The temperature at which a slope, of the loss in the factor on the logits, is 0."""
    note = _no_temperature(label, slope)
    if note:
        return Temperature(1.0, note, len(label), int(label.sum()), None, None)
    value = 1 / float(brentq(slope, 1 / _FLATTEST, 1 / _SHARPEST, xtol=1e-9))
    return Temperature(value, "", len(label), int(label.sum()), loss(1.0), loss(value))


def tempered(scores: ArrayLike, temperature: float) -> Floats:
    """Scores at a temperature; at 1 they are what they were."""
    score = np.asarray(scores, dtype=float)
    if temperature == 1:
        return score
    up, down = score ** (1 / temperature), (1 - score) ** (1 / temperature)  # the sigmoid of the divided logit, also at 0 and 1
    return np.asarray(up / (up + down))


def tempered_classes(probabilities: ArrayLike, temperature: float) -> Floats:
    """Probabilities (C, ...) of classes of which one holds, at a temperature of their logits; at 1 they are what they were."""
    probability = np.asarray(probabilities, dtype=float)
    if temperature == 1:
        return probability
    powers = probability ** (1 / temperature)  # the softmax of the divided logits, also at 0 and 1
    return np.asarray(powers / powers.sum(axis=0))


def _no_temperature(label: Floats, slope: Callable[[float], float]) -> str:
    """Why no temperature can be fitted; empty where one can."""
    positives = int(label.sum())
    if min(positives, len(label) - positives) < _LEAST_OF_A_CLASS:
        return f"not fitted: {positives} positives and {len(label) - positives} negatives, at least {_LEAST_OF_A_CLASS} of each are needed"
    if slope(1 / _FLATTEST) > 0:
        return "not fitted: the scores say too little for any temperature"
    if slope(1 / _SHARPEST) < 0:
        return "not fitted: the scores separate the classes, and no temperature is sharp enough"
    return ""


def _slope(label: Floats, logit: Floats, factor: float) -> float:
    """Derivative of the mean cross entropy in the factor on the logit; it rises with the factor."""
    return float((logit * (1 / (1 + np.exp(-factor * logit)) - label)).mean())


def _cross_entropy(label: Floats, score: Floats) -> float:
    score = np.clip(score, _EDGE, 1 - _EDGE)
    return float(-np.where(label > 0, np.log(score), np.log(1 - score)).mean())


def _logit(score: Floats) -> Floats:
    score = np.clip(score, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(score / (1 - score)))


def _bin_index(scores: Floats, bins: int) -> NDArray[np.intp]:
    return np.clip(np.ceil(scores * bins).astype(np.intp) - 1, 0, bins - 1)
