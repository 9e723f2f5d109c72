"""Lesions as objects: components, one-to-one matching, FROC and CPM.

A lesion is a 26-connected component. A mark (a predicted component) may find a lesion when their IoU reaches 0.1; marks enter by
descending score, and at every threshold as many lesions are found as a one-to-one matching allows. A second mark on a found lesion is
neither a true nor a false positive; a mark that may find no lesion is a false positive; a lesion without a mark is missed.
FROC and CPM (mean sensitivity at 1/8 .. 8 false positives a scan): Setio et al., 2017, https://doi.org/10.1016/j.media.2017.06.015, by
the step rule, which never interpolates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label

from medssl.evaluation.classification import f1_score
from medssl.evaluation.few import no_interval
from medssl.evaluation.intervals import (
    BOOTSTRAP,
    Floats,
    RankedUnits,
    bootstrap_interval,
    clustered_proportion,
    index_patients,
    patient_weights,
)
from medssl.evaluation.metric import Metric, unmeasured
from medssl.evaluation.segmentation import mean_interval

MIN_IOU = 0.1
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_NAMED = tuple(f"{rate:g}" for rate in RATES)
RULE = (
    f"26-connected components; a mark finds a lesion at IoU >= {MIN_IOU:g}, one to one; a second mark on a found lesion is neither a "
    "true nor a false positive"
)
CENTRE_RULE = (
    "26-connected components; a mark finds the lesion that its centre lies in, one to one; a second mark on a found lesion is neither a "
    "true nor a false positive"
)
_CONNECTED_26 = np.ones((3, 3, 3))


@dataclass(frozen=True)
class Marks:
    """The predicted and true lesions of one scan, matched.

    Args:
        patient: Whose scan.
        hits: Scores of marks that found a lesion.
        alarms: Scores of marks that found none.
        duplicates: Scores of further marks on lesions already found.
        n_lesions: True lesions.
    """

    patient: str
    hits: tuple[float, ...]
    alarms: tuple[float, ...]
    duplicates: tuple[float, ...]
    n_lesions: int


def components(mask: ArrayLike) -> tuple[NDArray[np.int32], int]:
    """26-connected components of a mask (I, J, K), numbered from 1, and their number."""
    numbered, count = label(np.asarray(mask) > 0, _CONNECTED_26)
    return np.asarray(numbered, dtype=np.int32), int(count)


def counted(sizes: NDArray[np.integer], *, min_voxels: float, min_share: float) -> NDArray[np.bool_]:
    """Which components of a predicted mask count.

    Args:
        sizes: (n,) voxels of each component of one scan.
        min_voxels: Smaller ones do not count.
        min_share: Nor do those below this share of the largest, 0 to 1.
    """
    return np.asarray(sizes >= max(min_voxels, min_share * sizes.max(initial=0)))


def overlaps(marks: NDArray[np.int32], truth: NDArray[np.int32], *, n_marks: int, n_lesions: int) -> Floats:
    """(n_marks, n_lesions) IoU of every mark with every lesion."""
    both = np.bincount(marks.ravel().astype(np.int64) * (n_lesions + 1) + truth.ravel(), minlength=(n_marks + 1) * (n_lesions + 1))
    table = both.reshape(n_marks + 1, n_lesions + 1).astype(float)
    union = table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:] - table[1:, 1:]
    return np.asarray(table[1:, 1:] / np.maximum(union, 1))


def mark(prediction: ArrayLike, truth: ArrayLike, *, patient: str, probability: ArrayLike | None = None, min_iou: float = MIN_IOU) -> Marks:
    """Match the components of a predicted mask with those of the true one.

    Args:
        prediction: (I, J, K) mask.
        truth: (I, J, K) mask.
        patient: Whose scan.
        probability: (I, J, K); a mark scores its highest finite value inside. Without it every mark scores 1.
        min_iou: From which overlap a mark may find a lesion.
    """
    marks, n_marks = components(prediction)
    lesions, n_lesions = components(truth)
    scores = np.ones(n_marks)
    if probability is not None and n_marks:
        scores = np.zeros(n_marks + 1)
        inside = np.asarray(probability, dtype=float)[marks > 0]
        np.maximum.at(scores, marks[marks > 0], np.where(np.isfinite(inside), inside, 0.0))
        scores = scores[1:]
    near = overlaps(marks, lesions, n_marks=n_marks, n_lesions=n_lesions) >= min_iou
    hits, duplicates = match(near, scores)
    alarms = [index for index in range(n_marks) if not near[index].any()]
    found, false, again = (tuple(sorted((float(scores[index]) for index in group), reverse=True)) for group in (hits, alarms, duplicates))
    return Marks(patient, hits=found, alarms=false, duplicates=again, n_lesions=n_lesions)


def mark_centres(centres: ArrayLike, scores: ArrayLike, truth: ArrayLike, *, patient: str) -> Marks:
    """Match marks that are places with the components of a true mask: a mark may find the lesion that its centre lies in.

    Args:
        centres: (n_marks, 3) voxel indices; a place that is no number lies in no lesion.
        scores: (n_marks,); one that is no number counts as 0, as in `mark`.
        truth: (I, J, K) mask.
        patient: Whose scan.
    """
    lesions, n_lesions = components(truth)
    score = np.asarray(scores, dtype=float).ravel()
    score = np.where(np.isfinite(score), score, 0.0)
    places = np.asarray(centres, dtype=float).reshape(-1, 3)
    cells = np.rint(np.where(np.isfinite(places), places, -1.0)).astype(int)
    inside = ((cells >= 0) & (cells < lesions.shape)).all(axis=1)
    number = np.zeros(len(cells), dtype=int)
    number[inside] = lesions[tuple(cells[inside].T)]
    near = number[:, None] == np.arange(1, n_lesions + 1)
    hits, duplicates = match(near, score)
    groups = (hits, np.flatnonzero(number == 0).tolist(), duplicates)
    found, false, again = (tuple(sorted((float(score[index]) for index in group), reverse=True)) for group in groups)
    return Marks(patient, hits=found, alarms=false, duplicates=again, n_lesions=n_lesions)


def match(near: NDArray[np.bool_], scores: Floats) -> tuple[list[int], list[int]]:
    """Marks that add a found lesion, and those that may find one but add none; the best marks come first.

    Args:
        near: (n_marks, n_lesions) which mark may find which lesion.
        scores: (n_marks,) score of each mark.
    """
    owner: dict[int, int] = {}
    hits: list[int] = []
    duplicates: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not near[index].any():
            continue
        (hits if _augment(int(index), near, owner, seen=set()) else duplicates).append(int(index))
    return hits, duplicates


def _augment(index: int, near: NDArray[np.bool_], owner: dict[int, int], *, seen: set[int]) -> bool:
    """Give a mark a lesion, moving earlier marks to other lesions where that is needed."""
    for lesion in map(int, np.flatnonzero(near[index])):
        if lesion in seen:
            continue
        seen.add(lesion)
        if lesion not in owner or _augment(owner[lesion], near, owner, seen=seen):
            owner[lesion] = index
            return True
    return False


def assess(scans: Sequence[Marks]) -> dict[str, Metric]:
    """The ten numbers of the unit lesion; what needs true negatives cannot be measured."""
    patients = [scan.patient for scan in scans]
    found, alarms, lesions = (
        np.array(column, dtype=float) for column in (_lengths(scans, "hits"), _lengths(scans, "alarms"), _truth(scans))
    )
    sensitivity = _clustered(patients, found, lesions, empty="no true lesion")
    precision = _clustered(patients, found, found + alarms, empty="no lesion was predicted")
    none = unmeasured("there is no such thing as a negative lesion")
    return {
        "sensitivity": sensitivity,
        "specificity": none,
        "ppv": precision,
        "npv": none,
        "accuracy": none,
        "precision": precision,
        "recall": sensitivity,
        "f1": _f1(scans),
        "auroc": none,
        "auprc": unmeasured("missed lesions have no score; see froc"),
    }


def false_positives_per_scan(scans: Sequence[Marks]) -> Metric:
    """Marks that find no lesion, per scan."""
    if not scans:
        return unmeasured("no scan with a true and a predicted mask", method=BOOTSTRAP)
    alarms = np.array(_lengths(scans, "alarms"), dtype=float)
    interval, patients = mean_interval(alarms, [scan.patient for scan in scans])
    note = "" if interval else no_interval(patients) or "no interval: all values alike"
    return Metric(float(alarms.mean()), interval, BOOTSTRAP if interval else "none", int(alarms.sum()), len(scans), note)


def froc(scans: Sequence[Marks], *, rule: str = RULE) -> dict[str, object]:
    """FROC points, sensitivity at the usual rates of false positives per scan, and the CPM, with the bootstrap over patients.

    Beyond its last point (`ends_at`, false positives per scan) the curve is carried on level to the rates `carried`, as published CPMs do.
    """
    lesions = sum(_truth(scans))
    record: dict[str, object] = {
        "rule": rule,
        "n_scans": len(scans),
        "n_scans_without_lesion": sum(scan.n_lesions == 0 for scan in scans),
        "n_lesions": lesions,
        "duplicates": sum(_lengths(scans, "duplicates")),
    }
    if lesions == 0:
        empty = unmeasured("no true lesion", method=BOOTSTRAP).to_json()
        at = {"sensitivity_at": {name: None for name in _NAMED}, "sensitivity_at_ci95": {name: [None, None] for name in _NAMED}}
        return record | {"fp_per_scan": [], "sensitivity": [], "thresholds": [], "ends_at": None, "carried": []} | at | {"cpm": empty}
    ranked, marks_of = _ranked(scans)
    hits, alarms = ranked.cumulated()
    at_rates = _sensitivity_at(hits, alarms, lesions=np.array(lesions), scans=np.array(len(scans)))
    samples, patients = _samples_at_rates(scans, ranked, marks_of)
    value = float(at_rates.mean())
    interval, method, note = bootstrap_interval(samples.mean(axis=1), value=value, patients=patients)
    cpm = Metric(value, interval, method, int(hits[-1]) if len(hits) else 0, lesions, note)
    ends = [bootstrap_interval(column, value=float(one), patients=patients)[0] for column, one in zip(samples.T, at_rates, strict=True)]
    last = float(alarms[-1] / len(scans)) if len(alarms) else 0.0
    return record | {
        "fp_per_scan": (alarms / len(scans)).tolist(),
        "sensitivity": (hits / lesions).tolist(),
        "thresholds": ranked.thresholds.tolist(),
        "ends_at": last,
        "carried": [rate for rate in RATES if rate > last + 1e-12],
        "sensitivity_at": dict(zip(_NAMED, at_rates.tolist(), strict=True)),
        "sensitivity_at_ci95": {name: list(pair or (None, None)) for name, pair in zip(_NAMED, ends, strict=True)},
        "cpm": cpm.to_json(),
    }


def _ranked(scans: Sequence[Marks]) -> tuple[RankedUnits, NDArray[np.intp]]:
    """All hits and false alarms by score, and the scan that each belongs to."""
    rows = [(1, score, index) for index, scan in enumerate(scans) for score in scan.hits]
    rows += [(0, score, index) for index, scan in enumerate(scans) for score in scan.alarms]
    labels, scores, owners = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    return RankedUnits(labels, scores), owners.astype(np.intp)


def _sensitivity_at(hits: Floats, alarms: Floats, *, lesions: Floats, scans: Floats) -> Floats:
    """(..., 7) highest sensitivity whose false positives per scan stay within each rate; hits and alarms are (..., T)."""
    rates = alarms / np.maximum(scans, 1)[..., None]
    allowed = [np.where(rates <= rate + 1e-12, hits, 0.0).max(axis=-1, initial=0.0) for rate in RATES]
    return np.stack(allowed, axis=-1) / np.maximum(lesions, 1)[..., None]


def _samples_at_rates(scans: Sequence[Marks], ranked: RankedUnits, owners: NDArray[np.intp]) -> tuple[Floats, int]:
    """(draws, 7) sensitivity at each rate when patients are drawn, NaN where a draw has no lesion, and how many patients have one."""
    index, count = index_patients([scan.patient for scan in scans])
    truth = np.bincount(index, weights=_truth(scans), minlength=count)
    sizes = np.bincount(index, minlength=count).astype(float)
    samples = []
    for block in patient_weights(count, columns=len(owners)):
        hits, alarms = ranked.cumulated(block[:, index[owners]])
        lesions = block @ truth
        at_rates = _sensitivity_at(hits, alarms, lesions=lesions, scans=block @ sizes)
        samples.append(np.where(lesions[:, None] > 0, at_rates, np.nan))
    return np.concatenate(samples), int((truth > 0).sum())


def _clustered(patients: Sequence[str], hits: Floats, trials: Floats, *, empty: str) -> Metric:
    if not len(patients):
        return unmeasured("no scan with a true and a predicted mask", method=BOOTSTRAP)
    index, count = index_patients(patients)
    by_patient = (np.bincount(index, weights=part, minlength=count) for part in (hits, trials))
    return clustered_proportion(*by_patient, empty=empty)


def _f1(scans: Sequence[Marks]) -> Metric:
    """F1 of lesions: found ones against missed ones and false marks."""
    labels = [value for scan in scans for value in (1,) * scan.n_lesions + (0,) * len(scan.alarms)]
    called = [
        value for scan in scans for value in (1,) * len(scan.hits) + (0,) * (scan.n_lesions - len(scan.hits)) + (1,) * len(scan.alarms)
    ]
    owners = [scan.patient for scan in scans for _ in range(scan.n_lesions + len(scan.alarms))]
    return f1_score(labels, called, patients=owners)


def _lengths(scans: Sequence[Marks], name: str) -> list[int]:
    return [len(getattr(scan, name)) for scan in scans]


def _truth(scans: Sequence[Marks]) -> list[int]:
    return [scan.n_lesions for scan in scans]
