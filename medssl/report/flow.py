"""The flow of scans from found to analysed, by reason code, and what it means when those without a score count as wrong."""

from collections import Counter
from typing import Any

from medssl.evaluation.intervals import proportion
from medssl.evaluation.metric import unmeasured
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
    """Rates of scans when every one that got no score counts as a wrong answer."""
    threshold = evidence.thresholds["scan"]
    if threshold is None:
        none = unmeasured("there is no threshold").to_json()
        return {"sensitivity": none, "specificity": none}
    known = [scan for scan in evidence.scans if scan.label is not None]
    positive, negative = ([scan for scan in known if scan.label == label] for label in (1, 0))
    found = sum(is_called(scan, threshold) for scan in positive)
    cleared = sum(scan.case.has_score and not is_called(scan, threshold) for scan in negative)
    return {
        "sensitivity": proportion(found, len(positive), empty="no positive scan").to_json(),
        "specificity": proportion(cleared, len(negative), empty="no negative scan").to_json(),
    }


def is_called(scan: Measured, threshold: float) -> bool:
    """Whether a scan has a score at or above the threshold."""
    score = scan.case.finding.score
    return scan.case.has_score and score is not None and score >= threshold
