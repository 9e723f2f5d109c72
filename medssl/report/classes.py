"""The part of `metrics.json` on named classes: which class a scan or a patient has, and how well each class was outlined."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from medssl.errors import ScanError
from medssl.evaluation.multiclass import ClassUnits, assess, class_dice, dice_by_class
from medssl.report.cases import Case, read_classes
from medssl.report.evidence import Evidence

DEFINITION = (
    "areas: each class against the rest; macro: mean over classes; a patient has the mean probabilities of the scans where classes exclude "
    "each other, else the highest; Dice of a class: scans in which it is or was found"
)

_Answer = tuple[int, ...] | None


def classes_record(evidence: Evidence) -> dict[str, Any]:
    """`{"classes": ...}` of a model of named classes, empty for lesion against none."""
    described = evidence.results.run.get("classes") or {}
    names = tuple(map(str, described.get("names") or ()))
    if not names:
        return {}
    outlined = evidence.results.run.get("task") == "segmentation"
    exclusive = bool(described.get("exclusive", True)) and not outlined  # a scan may hold lesions of several classes
    cases = [scan.case for scan in evidence.scans if not scan.case.rejected]
    outlines = {case.scan_id: _outlines(evidence, case, len(names)) for case in cases} if outlined else {}
    answers = {
        case.scan_id: _label(case, names, exclusive=exclusive) if (known := outlines.get(case.scan_id)) is None else known[0]
        for case in cases
    }
    record: dict[str, Any] = {
        "names": list(names),
        "exclusive": exclusive,
        "definition": DEFINITION,
        "patient": assess(_patients(cases, answers, names, exclusive=exclusive)),
        "scan": assess(_units("scan", [([case], answers[case.scan_id]) for case in cases], names, exclusive=exclusive)),
    }
    compared = [(case, known[1]) for case in cases if (known := outlines.get(case.scan_id)) is not None]
    if compared and not evidence.masks_refused:
        record["segmentation"] = dice_by_class(names, [dice for _, dice in compared], [case.patient for case, _ in compared])
    return {"classes": record}


def _outlines(evidence: Evidence, case: Case, classes: int) -> tuple[tuple[int, ...], tuple[float | None, ...]] | None:
    """Which classes the true mask of a scan holds, and the Dice of each; None where a map is missing or damaged. Its maps are let go."""
    try:
        pair = read_classes(evidence.results.folder, case)
    except ScanError:
        return None
    if pair is None:
        return None
    return tuple(int((pair[1] == number).any()) for number in range(1, classes + 1)), class_dice(*pair, classes)


def _label(case: Case, names: Sequence[str], *, exclusive: bool) -> _Answer:
    """A 0 or 1 for each class of a scan from its label; None where that is not known."""
    label = case.truth.class_label if case.truth is not None else ""
    found = [part.strip() for part in label.split(";") if part.strip()]
    if not found or (exclusive and (len(found) != 1 or found[0] not in names)):
        return None
    return tuple(int(name in found) for name in names)


def _patients(cases: Sequence[Case], answers: dict[str, _Answer], names: Sequence[str], *, exclusive: bool) -> ClassUnits:
    """One unit a patient; where classes exclude each other, one whose scans have unlike classes is left out."""
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case)
    members: list[tuple[list[Case], _Answer]] = []
    for scans in by_patient.values():
        known = [answer for scan in scans if (answer := answers[scan.scan_id]) is not None]
        agreed = len(known) == len(scans) and (not exclusive or len(set(known)) == 1)
        members.append((scans, tuple(map(max, zip(*known, strict=True))) if agreed else None))
    return _units("patient", members, names, exclusive=exclusive)


def _units(unit: str, members: Sequence[tuple[list[Case], _Answer]], names: Sequence[str], *, exclusive: bool) -> ClassUnits:
    """Units of one or several scans each, with their answers; those without an answer or a score are counted."""
    truth, scores, patients = [], [], []
    for scans, answer in members:
        found = np.array([[scan.finding.class_scores.get(name, np.nan) for name in names] for scan in scans])
        score = found.mean(axis=0) if exclusive else found.max(axis=0)
        if answer is not None and np.isfinite(score).all():
            truth.append(answer)
            scores.append(score)
            patients.append(scans[0].patient)
    shape = (len(truth), len(names))
    return ClassUnits(
        unit,
        tuple(names),
        np.array(truth, dtype=np.intp).reshape(shape),
        np.array(scores, dtype=float).reshape(shape),
        np.array(patients, dtype=str),
        exclusive,
        len(members) - len(truth),
    )
