"""Is it worth acting on the score: the decision curve of Vickers and Elkin, 2006, https://doi.org/10.1177/0272989X06295361.

Net benefit at a threshold probability t is TP / n - FP / n x t / (1 - t): found lesions, less false alarms at the rate at which a reader
would trade them. It takes the score for a probability, so it means something for calibrated scores alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl.errors import UsageError
from medssl.evaluation.classification import Units
from medssl.evaluation.few import FEW, no_interval
from medssl.evaluation.intervals import BOOTSTRAP, Floats, index_patients, patient_weights
from medssl.evaluation.metric import Interval

DEFINITION = "TP / n - FP / n x t / (1 - t) at the threshold probability t; acting on nobody is 0"
THRESHOLDS = tuple(step / 100 for step in (1, 2, *range(5, 100, 5)))


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold probability.

    Args:
        thresholds: Above 0, below 1.
        model: Acting on scores >= the threshold.
        treat_all: Acting on everybody; acting on nobody is 0.
        ci95: Of `model` over patients, empty of fewer than 10.
        method: How the interval was found.
        n: Units.
        note: Why there is no curve, or why it has no interval; empty when it has both.
    """

    thresholds: tuple[float, ...]
    model: tuple[float, ...]
    treat_all: tuple[float, ...]
    ci95: tuple[Interval, ...]
    method: str
    n: int
    note: str = ""


def decision_curve(units: Units, *, thresholds: Sequence[float] = THRESHOLDS) -> DecisionCurve:
    """The decision curve of scores that are probabilities.

    Args:
        units: Labels and scores, 0 to 1.
        thresholds: Threshold probabilities, above 0 and below 1.

    Raises:
        UsageError: A threshold is not a probability between 0 and 1.
    """
    at = np.asarray(thresholds, dtype=float)
    if not ((at > 0) & (at < 1)).all():
        raise UsageError("threshold probabilities of a decision curve lie above 0 and below 1")
    n = len(units.labels)
    if units.missing:
        return DecisionCurve((), (), (), (), "none", n, f"cannot be measured: {units.missing}")
    if units.scores.min() < 0 or units.scores.max() > 1:
        return DecisionCurve((), (), (), (), "none", n, "cannot be measured: the scores are no probabilities")
    truth, called = units.labels.astype(bool), units.scores[:, None] >= at
    worth = (called & truth[:, None]) - (called & ~truth[:, None]) * (at / (1 - at))  # (N, T) what each unit brings
    share = units.n_positive / n
    everybody = share - (1 - share) * at / (1 - at)
    ends, patients = _interval(worth, units)
    curves = tuple(at), tuple(worth.mean(axis=0)), tuple(everybody)
    return DecisionCurve(*curves, ends, BOOTSTRAP if ends else "none", n, no_interval(patients))


def _interval(worth: Floats, units: Units) -> tuple[tuple[Interval, ...], int]:
    """The interval at each threshold, none of few patients, and the number of patients."""
    index, count = index_patients(units.patients)
    if count < FEW:
        return (), count
    sums = np.zeros((count, worth.shape[1]))
    np.add.at(sums, index, worth)
    sizes = np.bincount(index, minlength=count).astype(float)
    samples = np.concatenate([block @ sums / (block @ sizes)[:, None] for block in patient_weights(count)])
    low, high = np.percentile(samples, (2.5, 97.5), axis=0)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)), count
