"""The record of `metrics.json`, from the evidence of a results folder."""

import datetime
import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from medssl.evaluation import calibration, classification, decision, lesions, segmentation
from medssl.evaluation.classification import Counts, Units
from medssl.evaluation.intervals import proportion
from medssl.evaluation.metric import Metric, finite
from medssl.report.classes import classes_record
from medssl.report.comparison import compare_runs
from medssl.report.evidence import Evidence, Measured, scan_units
from medssl.report.notes import notes
from medssl.report.robustness import robustness_record

SCHEMA = 1
PREVALENCES = (0.01, 0.05, 0.20)
USE = "Research use only. Not a medical device."
_SMALL_GROUP = 20
_RATES = classification.NAMES[:5]

Record = dict[str, Any]


def build_metrics(evidence: Evidence, others: Sequence[Evidence] = ()) -> Record:
    """Every number of the report as strict JSON: what cannot be measured is null and says why.

    Args:
        evidence: What this report is about.
        others: Runs of other models on the same scans.

    Raises:
        UsageError: Another run has another reference, or shares no scan.
    """
    units = {name: unit_record(evidence.units[name], evidence.thresholds[name]) for name in ("patient", "scan", "slice")}
    record: Record = {
        "schema": SCHEMA,
        "intended_use": USE,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run_record(evidence),
        "nominal": is_nominal(evidence),
        **units,
        "lesion": lesion_record(evidence),
        "operating_point": operating_point(evidence),
        "calibration": calibration_record(evidence.units["scan"]),
        "decision_curve": decision_record(evidence.units["scan"]),
        "froc": lesions.froc(evidence.marks, rule=evidence.lesion_rule),
        "segmentation": segmentation_record(evidence),
        "subgroups": subgroups(evidence),
        "flow": flow(evidence),
        "robustness": robustness_record(evidence),
        "comparison": compare_runs(evidence, others),
    }
    return record | classes_record(evidence) | {"notes": notes(record, evidence)}


def run_record(evidence: Evidence) -> Record:
    """Which model, software and data; a fixed choice of keys, so that nothing else of a run leaks into a report."""
    run = evidence.results.run
    names = ("model_id", "task", "level", "config_hash", "versions", "started", "finished", "split", "class_names")
    models = sorted({scan.case.finding.model_id for scan in evidence.scans})
    software = {"report_software": f"medssl {importlib.metadata.version('medssl')}"}
    return {name: run.get(name) for name in names} | {"model_id": run.get("model_id") or ", ".join(models)} | software


def is_nominal(evidence: Evidence) -> bool:
    """Whether volumes and distances mean voxels, because the scans have no physical geometry."""
    scored = [scan.case.finding.nominal for scan in evidence.scans if not scan.case.rejected]
    return bool(evidence.results.run.get("nominal")) or (bool(scored) and all(scored))


def unit_record(units: Units, threshold: float | None) -> Record:
    """The ten numbers of patients, scans or slices, with the table they come from."""
    clustered = units.unit == "slice"
    found = classification.assess(units, threshold=threshold, clustered=clustered)
    if not clustered and len(np.unique(units.patients)) < len(units.labels):
        found = found | _with_patient_intervals(units, threshold, found)
    record: Record = {
        "n": len(units.labels),
        "n_positive": units.n_positive,
        "n_patients": len(np.unique(units.patients)),
        "n_excluded_without_score": units.excluded,
        "threshold": threshold,
    }
    record |= {name: metric.to_json() for name, metric in found.items()}
    return record | (_table(units, threshold, found) if threshold is not None else {})


def _with_patient_intervals(units: Units, threshold: float | None, found: Mapping[str, Metric]) -> dict[str, Metric]:
    """The rates of scans, with the interval that heeds that some scans are of one patient beside Wilson's."""
    drawn = classification.assess(units, threshold=threshold, clustered=True)
    names = [name for name in (*_RATES, "precision", "recall") if drawn[name].ci95 is not None]
    return {name: replace(found[name], beside={**found[name].beside, "patients95": list(drawn[name].ci95 or ())}) for name in names}


def _table(units: Units, threshold: float, found: Mapping[str, Metric]) -> Record:
    counts = Counts.of(units.labels, units.scores >= threshold)
    record: Record = {"counts": asdict(counts), "mcc": finite(counts.mcc)}
    if units.unit == "slice":
        return record
    record |= {name: metric.to_json() for name, metric in classification.likelihood_ratios(counts).items()}
    if found["sensitivity"].value is None or found["specificity"].value is None:
        return record
    return record | {"at_prevalence": [_at_prevalence(counts, prevalence) for prevalence in PREVALENCES]}


def _at_prevalence(counts: Counts, prevalence: float) -> Record:
    found = classification.predictive_values_at(counts, prevalence=prevalence)
    record: Record = {"prevalence": prevalence}
    for name, metric in found.items():
        record |= {name: metric.value, f"{name}_ci95": list(metric.ci95 or (None, None)), f"{name}_note": metric.note}
    return record | {"method": found["ppv"].method}


def lesion_record(evidence: Evidence) -> Record:
    """The ten numbers of lesions; those that need negatives are null."""
    marks = evidence.marks
    found = lesions.assess(marks)
    return {
        "n": sum(scan.n_lesions for scan in marks),
        "n_scans": len(marks),
        "rule": evidence.lesion_rule,
        **{name: metric.to_json() for name, metric in found.items()},
        "false_positives_per_scan": lesions.false_positives_per_scan(marks).to_json(),
        "counts": {
            "found": sum(len(scan.hits) for scan in marks),
            "missed": sum(scan.n_lesions - len(scan.hits) for scan in marks),
            "false_marks": sum(len(scan.alarms) for scan in marks),
            "second_marks": sum(len(scan.duplicates) for scan in marks),
        },
    }


def operating_point(evidence: Evidence) -> Record:
    """The locked point of scans on top, those of all units below `by_unit`."""
    names = ("threshold", "rule", "chosen_on", "locked_at", "n", "n_positive", "sensitivity", "specificity")
    points = {unit: point for unit, point in (evidence.results.run.get("operating_points") or {}).items() if isinstance(point, dict)}
    scan = points.get("scan", {})
    top = {name: scan.get(name) for name in names} | {"unit": "scan", "threshold": evidence.thresholds["scan"]}
    return top | {"decision": "positive = score >= threshold; a patient counts by the highest scan", "by_unit": points}


def calibration_record(units: Units) -> Record:
    """Calibration of the score of scans."""
    table = [asdict(one) for one in calibration.reliability(units.labels, units.scores)] if len(units.labels) else []
    found = {name: metric.to_json() for name, metric in calibration.assess(units).items()}
    return {"unit": "scan", "definition": calibration.DEFINITION, "n": len(units.labels), **found, "bins": table}


def decision_record(units: Units) -> Record:
    """The decision curve of the score of scans, taken for a probability."""
    return {"unit": "scan", "definition": decision.DEFINITION, **asdict(decision.decision_curve(units))}


def segmentation_record(evidence: Evidence) -> Record:
    """Agreement of masks, scan by scan and together."""
    pairs = evidence.overlaps
    compared = [(scan, overlap) for scan, overlap in pairs if overlap.status != "both_empty"]
    columns: dict[str, list[tuple[Measured, float | None]]] = {
        "dice": [(scan, overlap.dice) for scan, overlap in compared],
        "dice_with_lesion": [(scan, overlap.dice) for scan, overlap in compared if overlap.status != "truth_empty"],
        "hd95_mm": [(scan, overlap.hd95_mm) for scan, overlap in compared],
        "surface_dice": [(scan, overlap.surface_dice) for scan, overlap in compared],
        "volume_error_ml": [(scan, overlap.volume_error_ml) for scan, overlap in compared],
    }
    summary = {
        name: segmentation.summarise([value for _, value in column if value is not None], [scan.case.patient for scan, _ in column])
        for name, column in columns.items()
    }
    return {
        "definitions": segmentation.DEFINITIONS,
        "status": dict(Counter(overlap.status for _, overlap in pairs)),
        "excluded_both_empty": len(pairs) - len(compared),
        "per_scan": [_scan_record(scan) for scan, _ in pairs],
        "summary": summary,
    }


def _scan_record(scan: Measured) -> Record:
    record: Record = {"scan_id": scan.case.scan_id, "label": scan.label}
    if scan.overlap is not None:
        record |= asdict(scan.overlap) | {"volume_error_ml": scan.overlap.volume_error_ml}
    if scan.marks is not None:
        record |= {"lesions": scan.marks.n_lesions, "found": len(scan.marks.hits), "false_marks": len(scan.marks.alarms)}
    return record


def subgroups(evidence: Evidence) -> Record:
    """Scans by site, and with and without intake warnings; small groups say so."""
    analysed = evidence.analysed
    sites = {scan.case.truth.site for scan in analysed if scan.case.truth is not None and scan.case.truth.site}
    by_site = {site: [scan for scan in analysed if scan.case.truth is not None and scan.case.truth.site == site] for site in sorted(sites)}
    warned: dict[str, list[Measured]] = {"with": [], "without": []}
    for scan in analysed:
        warned["with" if scan.case.finding.warnings else "without"].append(scan)
    threshold = evidence.thresholds["scan"]
    groups = {"site": by_site, "warnings": {name: scans for name, scans in warned.items() if scans}}
    return {kind: [_group(name, scans, threshold) for name, scans in parts.items()] for kind, parts in groups.items()}


def _group(name: str, scans: Sequence[Measured], threshold: float | None) -> Record:
    units = scan_units(scans)
    found = classification.assess(units, threshold=threshold, clustered=False)
    small = {"note": f"fewer than {_SMALL_GROUP} scans: no conclusion"} if len(units.labels) < _SMALL_GROUP else {}
    numbers = {metric: found[metric].to_json() for metric in ("sensitivity", "specificity", "auroc")}
    return {"group": name, "n": len(units.labels), "n_positive": units.n_positive, **numbers, **small}


def flow(evidence: Evidence) -> Record:
    """From the scans found to the scans analysed."""
    scans = evidence.scans
    rejected = [scan for scan in scans if scan.case.rejected]
    kept = [scan for scan in scans if not scan.case.rejected]
    names = {1: "lesion", 0: "no lesion", None: "unknown"}
    by_class = {
        name: {
            "found": sum(scan.label == label for scan in scans),
            "rejected": sum(scan.label == label for scan in rejected),
            "scored": sum(scan.label == label and scan.case.has_score for scan in kept),
        }
        for label, name in names.items()
    }
    return {
        "found": len(scans),
        "rejected": len(rejected),
        "rejected_by_code": dict(Counter(code for scan in rejected for code in scan.case.finding.warnings or ("unknown",))),
        "scored": sum(scan.case.has_score for scan in kept),
        "without_finite_score": sum(not scan.case.has_score for scan in kept),
        "analysed": {name: len(units.labels) for name, units in evidence.units.items()} | {"segmentation": len(evidence.overlaps)},
        "by_class": by_class,
        "reference_without_result": evidence.results.unmatched,
        "positive_calls": sum(_called(scan, evidence.thresholds["scan"]) for scan in kept),
        "intention_to_score": _intention_to_score(evidence),
    }


def _intention_to_score(evidence: Evidence) -> Record:
    """Rates of scans when every one that got no score counts as a wrong answer."""
    threshold = evidence.thresholds["scan"]
    known = [scan for scan in evidence.scans if scan.label is not None]
    positive, negative = ([scan for scan in known if scan.label == label] for label in (1, 0))
    found = sum(_called(scan, threshold) for scan in positive)
    cleared = sum(scan.case.has_score and not _called(scan, threshold) for scan in negative)
    return {
        "sensitivity": proportion(found, len(positive), empty="no positive scan").to_json(),
        "specificity": proportion(cleared, len(negative), empty="no negative scan").to_json(),
    }


def _called(scan: Measured, threshold: float | None) -> bool:
    score = scan.case.finding.score
    return scan.case.has_score and score is not None and threshold is not None and score >= threshold
