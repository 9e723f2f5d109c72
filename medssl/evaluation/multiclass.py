"""Several classes at once: one-vs-rest areas, the confusion table, and agreement of masks class by class.

Macro means are over classes with members. One-vs-rest AUROC and its macro mean: Hand and Till discuss the choice, 2001,
https://doi.org/10.1023/A:1010920819831; balanced accuracy is the mean recall, Brodersen et al., 2010, https://doi.org/10.1109/ICPR.2010.764.
All intervals draw whole patients, the same ones for every class; a macro mean is over the same classes in every draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.classification import Units, auroc, delong
from medssl.evaluation.intervals import (
    BOOTSTRAP,
    Floats,
    RankedUnits,
    bootstrap_interval,
    clustered_proportion,
    index_patients,
    patient_weights,
    proportion,
)
from medssl.evaluation.metric import Metric, unmeasured
from medssl.evaluation.segmentation import dice, summarise

_HALF = 0.5
_MOST_LACKING = 0.1  # of the draws may lack a class; beyond, those that are left are no fair draw of patients


@dataclass(frozen=True, eq=False)
class ClassUnits:
    """Scans or patients with the classes they have and the probability of each class.

    Args:
        unit: `patient` or `scan`.
        names: Of the C classes.
        truth: (N, C) 1 where a unit has a class.
        scores: (N, C) probabilities.
        patients: (N,) whose unit it is.
        exclusive: Each unit has exactly one class.
        excluded: Units that are left out because their class or their scores are not known.
    """

    unit: str
    names: tuple[str, ...]
    truth: NDArray[np.intp]
    scores: Floats
    patients: NDArray[np.generic]
    exclusive: bool
    excluded: int = 0

    @property
    def called(self) -> NDArray[np.intp]:
        """(N, C) 1 for the likeliest class, or for each class that is at least as likely as not where there may be several."""
        if not self.exclusive:
            return np.asarray(self.scores >= _HALF, dtype=np.intp)
        return np.eye(len(self.names), dtype=np.intp)[self.scores.argmax(axis=1)] if len(self.scores) else self.truth


def assess(units: ClassUnits) -> dict[str, Any]:
    """Areas and rates of every class and their macro means, as JSON; the confusion table where each unit has one class."""
    record: dict[str, Any] = {
        "n": len(units.truth),
        "n_excluded": units.excluded,
        "by_class": {name: _class_record(units, index) for index, name in enumerate(units.names)},
        "macro_auroc": macro_auroc(units).to_json(),
        "macro_f1": macro(units, "f1").to_json(),
    }
    if not units.exclusive:
        return record
    return record | {"balanced_accuracy": macro(units, "recall").to_json(), "confusion": confusion(units).tolist()}


def _class_record(units: ClassUnits, index: int) -> dict[str, Any]:
    name, truth, called = units.names[index], units.truth[:, index], units.called[:, index]
    return {
        "n": int(truth.sum()),
        "auroc": auroc(_against_rest(units, index), clustered=True).to_json(),
        "recall": _share(units, truth * called, truth, empty=f"no {units.unit} of class {name}").to_json(),
        "precision": _share(units, truth * called, called, empty=f"no {units.unit} was called {name}").to_json(),
    }


def _share(units: ClassUnits, hits: NDArray[np.intp], trials: NDArray[np.intp], *, empty: str) -> Metric:
    """Share of trials (N,) that are hits (N,); drawn by patient where a patient has several units."""
    index, count = index_patients(units.patients)
    if count == len(index):
        return proportion(int(hits.sum()), int(trials.sum()), empty=empty)
    return clustered_proportion(*(np.bincount(index, weights=part, minlength=count) for part in (hits, trials)), empty=empty)


def _against_rest(units: ClassUnits, index: int) -> Units:
    name = f"{units.unit} of class {units.names[index]}"
    return Units.of(name, labels=units.truth[:, index], scores=units.scores[:, index], patients=units.patients)


def macro_auroc(units: ClassUnits) -> Metric:
    """The mean one-vs-rest AUROC of the classes that have both members and others."""
    columns, value = _told_apart(units.truth, units.scores), mean_area(units.truth, units.scores)
    if value is None:
        return unmeasured(f"no class with {units.unit}s in it and out of it", method=BOOTSTRAP, n=len(units.truth))
    samples = np.stack([RankedUnits(*column).bootstrap(units.patients, _areas) for column in columns], axis=1)  # the same draws
    return _metric(units, value, samples.mean(axis=1), missing=len(units.names) - len(columns))


def mean_area(truth: NDArray[np.intp], scores: Floats) -> float | None:
    """The value of `macro_auroc` alone, of truth and scores (N, C); None where no class has both members and others."""
    areas = [delong(*column)[0] for column in _told_apart(truth, scores)]
    return float(np.mean(areas)) if areas else None


def _told_apart(truth: NDArray[np.intp], scores: Floats) -> list[tuple[NDArray[np.intp], Floats]]:
    """The columns of the classes that have both members and others."""
    return [(truth[:, index], scores[:, index]) for index in range(truth.shape[1]) if 0 < truth[:, index].sum() < len(truth)]


def _areas(hits: Floats, alarms: Floats) -> Floats:
    """(D,) area under each curve of (D, T) counts, trapezoid so that ties count 1/2; NaN without both classes."""
    before = np.pad(hits, ((0, 0), (1, 0)))[:, :-1]
    area = ((hits + before) / 2 * np.diff(alarms, axis=1, prepend=0.0)).sum(axis=1)
    pairs = hits[:, -1] * alarms[:, -1]
    return np.asarray(np.divide(area, pairs, out=np.full_like(area, np.nan), where=pairs > 0))


def macro(units: ClassUnits, rate: str) -> Metric:
    """The mean over classes of `recall` or `f1`; classes without members are left out."""
    if not len(units.truth) or not units.truth.any():
        return unmeasured(f"no {units.unit} with a known class and scores", method=BOOTSTRAP)
    index, count = index_patients(units.patients)
    everybody = np.ones((1, len(units.truth)))
    value = float(_rates(units, everybody, rate)[0])
    draws = patient_weights(count, columns=len(index) * len(units.names))
    samples = np.concatenate([_rates(units, block[:, index], rate) for block in draws])
    return _metric(units, value, samples, missing=int((units.truth.sum(axis=0) == 0).sum()))


def _metric(units: ClassUnits, value: float, samples: Floats, *, missing: int) -> Metric:
    """A macro mean with the interval of the draws (D,) that hold every class; none where many do not (NaN)."""
    lacking = int(np.isnan(samples).sum())
    lost = f"{lacking} of {len(samples)} draws of patients lack a class" if lacking else ""
    left_out = f"{missing} of {len(units.names)} classes are left out: no {units.unit} has them, or all have" if missing else ""
    counts = len(units.names) - missing, len(units.truth)
    if lacking > _MOST_LACKING * len(samples):
        return Metric(value, None, "none", *counts, "; ".join(filter(None, (f"no interval: {lost}", left_out))))
    interval, method, note = bootstrap_interval(samples, value=value, patients=_fewest(units))
    return Metric(value, interval, method, *counts, "; ".join(filter(None, (note, lost, left_out))))


def _fewest(units: ClassUnits) -> int:
    """Patients that hold the rarest of the classes that there are, or that lack the commonest."""
    members = [units.truth[:, index] == holds for index in range(len(units.names)) for holds in (0, 1)]
    return min(len(np.unique(units.patients[member])) for member in members if member.any() and not member.all())


def _counts(units: ClassUnits, weights: Floats) -> Floats:
    """(3, D, C) true positives, false positives and false negatives of each class when units count so often, weights (D, N)."""
    truth, called = units.truth.astype(float), units.called.astype(float)
    return np.stack([weights @ (truth * called), weights @ ((1 - truth) * called), weights @ (truth * (1 - called))])


def _rates(units: ClassUnits, weights: Floats, rate: str) -> Floats:
    """(D,) means over the classes that have members; NaN for a draw that lacks one of them."""
    hits, alarms, misses = _counts(units, weights)[:, :, units.truth.any(axis=0)]
    below = hits + misses if rate == "recall" else (2 * hits + alarms + misses) / 2
    return np.asarray(np.divide(hits, below, out=np.full_like(hits, np.nan), where=hits + misses > 0).mean(axis=1))


def confusion(units: ClassUnits) -> NDArray[np.intp]:
    """(C, C) units of each true class (rows) by the class they were called (columns)."""
    return np.asarray(units.truth.T @ units.called, dtype=np.intp)


def class_dice(predicted: ArrayLike, truth: ArrayLike, classes: int) -> tuple[float | None, ...]:
    """Dice of every class of a scan; None where neither mask has it.

    Args:
        predicted: (I, J, K) numbers of classes, 0 for none and 1 for the first.
        truth: The same.
        classes: C.
    """
    found, there = np.asarray(predicted), np.asarray(truth)
    return tuple(dice(found == number, there == number) for number in range(1, classes + 1))


def dice_by_class(names: Sequence[str], found: Sequence[Sequence[float | None]], patients: Sequence[str]) -> dict[str, Any]:
    """Mean Dice of each class over the scans in which it is or was found, with the bootstrap over patients.

    Args:
        names: Of the C classes.
        found: (N, C) Dice of each scan, None where a scan has nothing of a class.
        patients: (N,) whose scan it is.
    """
    records = {}
    for index, name in enumerate(names):
        pairs = [(scan[index], patient) for scan, patient in zip(found, patients, strict=True)]
        kept = [(value, patient) for value, patient in pairs if value is not None]
        records[name] = summarise([value for value, _ in kept], [patient for _, patient in kept])
    return records
