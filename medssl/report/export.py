"""Tables for a spreadsheet: every number of `metrics.json` and a row a scan, safe to open.

A text that a spreadsheet would take for a formula gets a `'` in front, every cell is quoted, and numbers stay numbers.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from medssl.cells import safe
from medssl.report.evidence import Evidence, Measured
from medssl.report.flow import is_called

UNITS = ("patient", "scan", "slice", "lesion", "calibration")
METRIC_COLUMNS = ("unit", "metric", "value", "low95", "high95", "method", "k", "n", "note")
SCAN_COLUMNS = (
    *("scan_id", "status", "label", "score", "threshold", "call", "dice", "hd95_mm", "surface_dice", "true_ml", "predicted_ml"),
    *("lesions", "found", "false_marks", "warnings", "problem"),
)

Row = dict[str, object]


def metrics_csv(metrics: Mapping[str, Any]) -> str:
    """Every number with an interval as a row."""
    return table(METRIC_COLUMNS, _metric_rows(metrics))


def scans_csv(evidence: Evidence) -> str:
    """Every scan as a row; patients are not named."""
    scans = [replace(scan, overlap=None, marks=None) if evidence.masks_refused else scan for scan in evidence.scans]
    return table(SCAN_COLUMNS, (_scan_row(scan, evidence.thresholds["scan"]) for scan in scans))


def table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """CSV text, each cell quoted and none a formula."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([safe(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _metric_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    for unit in UNITS:
        yield from (_metric_row(unit, name, one) for name, one in metrics[unit].items() if isinstance(one, dict) and "value" in one)
    yield _metric_row("lesion", "cpm", metrics["froc"]["cpm"])
    for name, one in metrics["segmentation"]["summary"].items():
        yield _metric_row("segmentation", f"{name} (mean)", one | {"value": one["mean"]})
    for kind, groups in metrics["subgroups"].items():
        for group in groups:
            unit = f"scan, {kind}: {group['group']}"
            yield from (_metric_row(unit, name, one) for name, one in group.items() if isinstance(one, dict))
    yield from _rows_within("classes", metrics.get("classes") or {})
    yield from _rows_within("intention to score", metrics["flow"].get("intention_to_score") or {})


def _rows_within(unit: str, record: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each metric in a record, however deep; the keys on the way name the unit."""
    for name, one in record.items():
        if isinstance(one, dict) and {"value", "ci95"} <= set(one):
            yield _metric_row(unit, name, one)
        elif isinstance(one, dict):
            yield from _rows_within(f"{unit}, {name}", one)


def _metric_row(unit: str, name: str, one: Mapping[str, Any]) -> Row:
    low, high = one["ci95"]
    told = {key: one.get(key) for key in ("value", "method", "k", "n", "note")}
    return {"unit": unit, "metric": name, "low95": low, "high95": high} | told


def _scan_row(scan: Measured, threshold: float | None) -> Row:
    finding, overlap, marks = scan.case.finding, scan.overlap, scan.marks
    row: Row = {
        "scan_id": finding.scan_id,
        "status": finding.status,
        "label": scan.label,
        "score": finding.score,
        "threshold": threshold,
        "warnings": ";".join(finding.warnings),
        "problem": scan.problem,
    }
    if threshold is not None and scan.case.has_score:
        row["call"] = "positive" if is_called(scan, threshold) else "negative"
    if overlap is not None:
        row |= {name: getattr(overlap, name) for name in ("dice", "hd95_mm", "surface_dice", "true_ml", "predicted_ml")}
    if marks is not None:
        row |= {"lesions": marks.n_lesions, "found": len(marks.hits), "false_marks": len(marks.alarms)}
    return row
