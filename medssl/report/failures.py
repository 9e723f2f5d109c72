"""Where the model was wrong: every false negative and every false positive, with what can be said about why."""

from collections.abc import Iterator
from typing import Any

from medssl.report.evidence import Evidence, Measured
from medssl.report.flow import is_called

Record = dict[str, Any]


def failures(evidence: Evidence) -> Record:
    """False negatives by lowest score and false positives by highest, each with its reason; null without a threshold."""
    threshold = evidence.thresholds["scan"]
    if threshold is None:
        return {"false_negatives": None, "false_positives": None}
    ranked = sorted(evidence.analysed, key=lambda scan: scan.case.finding.score or 0.0)
    return {
        "false_negatives": [_failure(scan) for scan in ranked if scan.label == 1 and not is_called(scan, threshold)],
        "false_positives": [_failure(scan) for scan in reversed(ranked) if scan.label == 0 and is_called(scan, threshold)],
    }


def _failure(scan: Measured) -> Record:
    finding = scan.case.finding
    return {"scan_id": finding.scan_id, "score": finding.score, "reason": reason(scan), "warnings": list(finding.warnings)}


def reason(scan: Measured) -> str:
    """What the maps say about why the call of a scan is wrong."""
    return "; ".join(_missed(scan) if scan.label == 1 else _alarmed(scan))


def _missed(scan: Measured) -> Iterator[str]:
    marks, overlap = scan.marks, scan.overlap
    if marks is None:
        yield scan.problem or "no mask to compare"
        return
    if marks.hits:
        yield f"{len(marks.hits)} of {marks.n_lesions} lesions were marked, but the score of the scan stays below the threshold"
    elif marks.alarms:
        yield f"{len(marks.alarms)} marks, none of which meets a lesion"
    else:
        yield "nothing was marked"
    if overlap is not None:
        yield f"true volume {overlap.true_ml:.3g} {_unit(scan)}"


def _alarmed(scan: Measured) -> Iterator[str]:
    found = scan.case.finding.lesions
    if not found:
        slices = scan.case.finding.slice_scores
        yield f"no mark; the score comes from slice {slices.index(max(slices)) + 1} of {len(slices)}" if slices else "no mark"
        return
    volume = sum(lesion.volume_ml for lesion in found)
    yield f"{len(found)} false marks of {volume:.3g} {_unit(scan)} together, the surest at {max(lesion.score for lesion in found):.3f}"


def _unit(scan: Measured) -> str:
    return "nominal ml" if scan.case.finding.nominal else "ml"
