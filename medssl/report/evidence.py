"""What a results folder says about each unit of analysis: one pass over the scans, maps in memory one scan at a time."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from medssl.errors import ScanError
from medssl.evaluation.classification import Units
from medssl.evaluation.lesions import CENTRE_RULE, RULE, Marks, mark, mark_centres
from medssl.evaluation.segmentation import Overlap, compare
from medssl.report.cases import Case, Results, ScanMaps, read_maps
from medssl.report.lock import points_of, refusals
from medssl.workers import Crash, Pool


@dataclass(frozen=True, eq=False)
class Measured:
    """One scan against its truth; a part is None where it cannot be compared.

    Args:
        case: The scan.
        label: 1 with lesion, 0 without, None where unknown.
        slice_labels: (K,) 1 where a slice truly holds lesion.
        overlap: Predicted mask against the true one.
        marks: Predicted lesions against the true ones.
        problem: Why a part is missing or doubtful, empty when all is well.
    """

    case: Case
    label: int | None
    slice_labels: NDArray[np.intp] | None = None
    overlap: Overlap | None = None
    marks: Marks | None = None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that numbers and figures are made of.

    Args:
        results: The folder.
        scans: Every scan, rejected ones too.
        units: `patient`, `scan` and `slice` with known answer and score.
        thresholds: Locked threshold of each unit, None where there is none or it is refused.
        refused: Why the threshold of a unit (also `voxel`, or `lesion` of a detector) is refused.
    """

    results: Results
    scans: tuple[Measured, ...]
    units: Mapping[str, Units]
    thresholds: Mapping[str, float | None]
    refused: Mapping[str, str]

    @property
    def analysed(self) -> list[Measured]:
        """Scans with a score and a known answer."""
        return [scan for scan in self.scans if scan.case.has_score and scan.label is not None]

    @property
    def overlaps(self) -> list[tuple[Measured, Overlap]]:
        """Scans whose predicted mask could be compared with the true one."""
        return [(scan, scan.overlap) for scan in self.scans if scan.overlap is not None]

    @property
    def lesion_rule(self) -> str:
        """How lesions were matched: by the overlap of masks, or by the places that a detector gives, and the least size of either."""
        detects = self.results.run.get("task") == "detection"
        point = {} if detects else points_of(self.results.run).get("voxel", {})
        least, share = (value if isinstance(value := point.get(name), int | float) else 0 for name in ("min_voxels", "min_share"))
        sizes = [f"fewer than {least} voxels of the network's grid"] if least > 1 else []
        sizes += [f"less than {share:.0%} of the scan's largest mark"] if share > 0 else []
        left_out = f"marks of {' or '.join(sizes)} are left out, true lesions count at any size"
        return f"{CENTRE_RULE if detects else RULE}; {left_out if sizes else 'no least size of a mark or a lesion'}"

    @property
    def masks_refused(self) -> str:
        """Why every number of masks and of lesions is refused, because their threshold is; empty where they stand."""
        return self.refused.get("voxel") or self.refused.get("lesion") or ""

    @property
    def marks(self) -> list[Marks]:
        """Matched lesions of the scans that have a true and a predicted mask."""
        return [scan.marks for scan in self.scans if scan.marks is not None]


def gather(results: Results, *, workers: int | None = None) -> Evidence:
    """Measure every scan, in several processes where it takes long; each holds the maps of one scan at a time.

    Args:
        results: The folder.
        workers: Processes; None takes one a core.
    """
    detects = results.run.get("task") == "detection"
    with Pool(workers) as pool:
        done = dict(pool.spread(partial(measure, results.folder, detects=detects), results.cases))
    scans = tuple(_or_crashed(done[number], case) for number, case in enumerate(results.cases))
    units = {"patient": patient_units(scans), "scan": scan_units(scans), "slice": slice_units(scans)}
    refused = refusals(results.run)
    if "scan" in refused:
        refused["patient"] = refused["scan"]
    return Evidence(results, scans, units, _thresholds(results, refused), refused)


def _or_crashed(outcome: Measured | Crash, case: Case) -> Measured:
    if isinstance(outcome, Measured):
        return outcome
    return Measured(
        case, case.truth.label if case.truth is not None else None, problem="decoder_crashed: the process that read its maps died"
    )


def measure(folder: Path, case: Case, *, detects: bool = False) -> Measured:
    """Compare one scan with its truth; `detects` says that its lesions are places without a mask."""
    truth = case.truth
    if truth is None or case.rejected:
        return Measured(case, truth.label if truth is not None else None)
    try:
        maps = read_maps(folder, case, image=False)
    except ScanError as error:
        return Measured(case, truth.label, _slices_by_label(case, truth.label), problem=str(error))
    lesion = _lesion(maps, truth.label)
    label = truth.label if truth.label is not None or lesion is None else int(lesion.any())
    measured = Measured(case, label, _slice_labels(case, lesion, label), problem=_contradiction(truth.label, maps))
    if detects:
        problem = "; ".join(filter(None, (measured.problem, _unscored(case))))
        return replace(measured, marks=_marked(case, lesion), problem=problem)
    if lesion is None or maps.mask is None:
        return measured
    overlap = compare(maps.mask > 0, lesion, spacing_mm=maps.spacing_mm)
    marks = _marks(maps, lesion, case.patient)
    return Measured(case, label, measured.slice_labels, overlap, marks, measured.problem)


def _unscored(case: Case) -> str:
    """What to say of places whose score is no number."""
    unscored = any(not math.isfinite(one.score) for one in case.finding.lesions)
    return "some marks have a score that is no number; they count as the least sure" if unscored else ""


def _marked(case: Case, lesion: NDArray[np.bool_] | None) -> Marks | None:
    """The places that a detector found against the true mask; None where that is not known."""
    found, shape = case.finding.lesions, case.finding.shape
    if lesion is None and (case.truth is None or case.truth.label != 0 or shape is None):
        return None
    truth = np.zeros(shape or (1, 1, 1), dtype=bool) if lesion is None else lesion
    return mark_centres([one.centre_voxel for one in found], [one.score for one in found], truth, patient=case.patient)


def _marks(maps: ScanMaps, lesion: NDArray[np.bool_], patient: str) -> Marks:
    """Matched lesions, looked for where there is something: most of a scan is neither marked nor lesion."""
    prediction = np.asarray(maps.mask) > 0
    boxes = find_objects((prediction | lesion).astype(np.uint8))
    if not boxes:
        return Marks(patient, hits=(), alarms=(), duplicates=(), n_lesions=0)
    box = boxes[0]
    probability = None if maps.probability is None else maps.probability[box]
    return mark(prediction[box], lesion[box], patient=patient, probability=probability)


def _lesion(maps: ScanMaps, label: int | None) -> NDArray[np.bool_] | None:
    """The true mask; that of a scan known to have no lesion is empty."""
    if maps.lesion is not None:
        return np.asarray(maps.lesion > 0)
    return np.zeros(maps.mask.shape, dtype=bool) if label == 0 and maps.mask is not None else None


def _contradiction(label: int | None, maps: ScanMaps) -> str:
    if label is None or maps.lesion is None or bool(np.any(maps.lesion > 0)) == bool(label):
        return ""
    return "the label contradicts the true mask; the label was used for the scan, the mask for slices and lesions"


def _slice_labels(case: Case, lesion: NDArray[np.bool_] | None, label: int | None) -> NDArray[np.intp] | None:
    if lesion is None:
        return _slices_by_label(case, label)
    if lesion.shape[2] != len(case.finding.slice_scores):
        return None
    return np.asarray(lesion.any(axis=(0, 1)), dtype=np.intp)


def _slices_by_label(case: Case, label: int | None) -> NDArray[np.intp] | None:
    """Labels of slices where no mask is needed: an image of one slice, or a scan without lesion."""
    shape, count = case.finding.shape, len(case.finding.slice_scores)
    if label is None or shape is None or shape[2] != count or (label == 1 and count != 1):
        return None
    return np.full(count, label, dtype=np.intp)


def scan_units(scans: Iterable[Measured]) -> Units:
    """One unit a scan with a known answer; scores that are no number are counted as excluded."""
    known = [scan for scan in scans if scan.label is not None and not scan.case.rejected]
    return Units.of(
        "scan",
        labels=[scan.label or 0 for scan in known],
        scores=[_score(scan) for scan in known],
        patients=np.array([scan.case.patient for scan in known], dtype=str),
    )


def patient_units(scans: Iterable[Measured]) -> Units:
    """One unit a patient: the highest label and the highest score of the scans; a patient whose answer is not sure is left out.

    A rejected scan has no score, but its label counts: a patient whose lesion is on a rejected scan is no negative patient.
    """
    by_patient: dict[str, list[Measured]] = defaultdict(list)
    for scan in scans:
        if scan.case.truth is not None:
            by_patient[scan.case.patient].append(scan)
    by_patient = {patient: group for patient, group in by_patient.items() if not all(scan.case.rejected for scan in group)}
    answers = {patient: _answer(group) for patient, group in by_patient.items()}
    known = [patient for patient, answer in answers.items() if answer is not None]
    highest = [max((_score(scan) for scan in by_patient[patient] if scan.case.has_score), default=np.nan) for patient in known]
    return Units.of("patient", labels=[answers[patient] or 0 for patient in known], scores=highest, patients=np.array(known, dtype=str))


def _answer(scans: list[Measured]) -> int | None:
    labels = [scan.label for scan in scans]
    if 1 in labels:
        return 1
    return None if None in labels else 0


def slice_units(scans: Iterable[Measured]) -> Units:
    """One unit a slice whose answer is known."""
    known = [(scan, scan.slice_labels) for scan in scans if scan.slice_labels is not None and not scan.case.rejected]
    labels = [labels for _, labels in known]
    return Units.of(
        "slice",
        labels=np.concatenate(labels) if labels else [],
        scores=np.concatenate([scan.case.finding.slice_scores for scan, _ in known]) if known else [],
        patients=np.repeat(np.array([scan.case.patient for scan, _ in known], dtype=str), [len(part) for part in labels]),
    )


def _score(scan: Measured) -> float:
    score = scan.case.finding.score
    return float("nan") if score is None else float(score)


def _thresholds(results: Results, refused: Mapping[str, str]) -> dict[str, float | None]:
    """Locked thresholds that are not refused; patients are called by their highest scan."""
    points = points_of(results.run)
    locked = {unit: _threshold(points.get(unit)) for unit in ("scan", "slice")}
    carried = [case.finding.threshold for case in results.cases if case.finding.threshold is not None]
    scan = locked["scan"] if locked["scan"] is not None else (carried[0] if carried else None)
    thresholds = {"patient": scan, "scan": scan, "slice": locked["slice"]}
    return {unit: None if unit in refused else threshold for unit, threshold in thresholds.items()}


def _threshold(point: object) -> float | None:
    value = point.get("threshold") if isinstance(point, dict) else None
    return float(value) if isinstance(value, int | float) else None
