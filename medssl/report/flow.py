"""The flow of scans from found to analysed, by reason code, and what it means when those without a score count as wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medssl.evaluation.intervals import clustered_proportion, index_patients, proportion
from medssl.evaluation.metric import Metric, unmeasured
from medssl.report.evidence import Evidence, Measured

Record = dict[str, Any]


def flow(evidence: Evidence) -> Record:
    """From the scans found to the scans analysed."""
    scans, threshold = evidence.scans, evidence.thresholds["scan"]
    rejected = [scan for scan in scans if scan.case.rejected]
    kept = [scan for scan in scans if not scan.case.rejected]
    names = {1: "lesion", 0: "no lesion", None: "unknown"}
    by_class = {
        name: {
            "found": sum(scan.label == label for scan in scans),
            "rejected": sum(scan.label == label for scan in rejected),
            "readable": sum(scan.label == label for scan in kept),
            "eligible": sum(scan.label == label for scan in kept if label is not None),
            "scored": sum(scan.label == label and scan.case.has_score for scan in kept),
            "analysed": sum(scan.label == label and scan.case.has_score for scan in kept if label is not None),
        }
        for label, name in names.items()
    }
    return {
        "found": len(scans),
        "rejected": len(rejected),
        "rejected_by_code": dict(Counter(code for scan in rejected for code in scan.case.finding.warnings or ("unknown",))),
        "readable": len(kept),
        "eligible": sum(scan.label is not None for scan in kept),
        "scored": sum(scan.case.has_score for scan in kept),
        "without_finite_score": sum(not scan.case.has_score for scan in kept),
        "analysed": {name: len(units.labels) for name, units in evidence.units.items()} | {"segmentation": len(evidence.overlaps)},
        "by_class": by_class,
        "reference_without_result": evidence.results.unmatched,
        "positive_calls": None if threshold is None else sum(is_called(scan, threshold) for scan in kept),
        "intention_to_score": _intention_to_score(evidence),
    }


def _intention_to_score(evidence: Evidence) -> Record:
    """Rates of scans when every one that got no score counts as a wrong answer, rows of the reference without a result among them."""
    threshold = evidence.thresholds["scan"]
    note = _what_is_in(evidence)
    if threshold is None:
        none = unmeasured("there is no threshold").to_json()
        return {"sensitivity": none, "specificity": none, "note": note}
    answers = [
        (scan.label, scan.case.patient, scan.case.has_score and is_called(scan, threshold) == bool(scan.label))
        for scan in evidence.scans
        if scan.label is not None
    ]
    answers += [
        (truth.label, truth.patient or f"row {row}", False) for row, truth in enumerate(evidence.results.missing) if truth.label is not None
    ]
    found = {}
    for name, label, kind in (("sensitivity", 1, "positive"), ("specificity", 0, "negative")):
        rows = [(patient, right) for answer, patient, right in answers if answer == label]
        found[name] = _rate(rows, empty=f"no {kind} scan").to_json()
    return {**found, "note": note}


def _rate(rows: Sequence[tuple[str, bool]], *, empty: str) -> Metric:
    """The share of (patient, right) that are right, with the interval drawn by patient beside it where patients have several scans."""
    metric = proportion(sum(right for _, right in rows), len(rows), empty=empty)
    index, patients = index_patients([patient for patient, _ in rows])
    if patients == len(rows):
        return metric
    hits = np.bincount(index, weights=[right for _, right in rows], minlength=patients)
    drawn = clustered_proportion(hits, np.bincount(index, minlength=patients), empty=empty)
    if drawn.ci95 is None:
        return replace(metric, note=f"scans are taken as independent; {drawn.note}")
    return replace(metric, beside={**metric.beside, "patients95": list(drawn.ci95)})


def _what_is_in(evidence: Evidence) -> str:
    """Which scans the intention to score counts, and which it cannot."""
    said = "Every scan without a score counts as a wrong answer"
    unmatched = sum(truth.label is not None for truth in evidence.results.missing)
    if unmatched:
        said += f", {unmatched} of the reference that are not in the results folder among them"
    intake = evidence.results.run.get("intake")
    refused = sum((intake.get("rejected_by_code") or {}).values()) if isinstance(intake, dict) else 0
    if refused:
        said += f". Scans that medssl prepare had refused ({refused} reasons in the whole store) have no row here and are not counted"
    return f"{said}."


def is_called(scan: Measured, threshold: float) -> bool:
    """Whether a scan has a score at or above the threshold."""
    score = scan.case.finding.score
    return scan.case.has_score and score is not None and score >= threshold
