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
from medssl.evaluation.metric import Metric, finite, unmeasured
from medssl.report.case_mix import case_mix
from medssl.report.checklists import checklists
from medssl.report.classes import classes_record
from medssl.report.comparison import compare_runs
from medssl.report.evidence import Evidence, Measured
from medssl.report.failures import failures
from medssl.report.flow import flow
from medssl.report.groups import subgroup_tests, subgroups
from medssl.report.lock import doubts, is_apparent, is_tempered_here, points_of
from medssl.report.looks import looks_record
from medssl.report.notes import notes
from medssl.report.robustness import robustness_record

SCHEMA = 1
PREVALENCES = (0.01, 0.05, 0.20)
USE = "Research use only. Not a medical device."
_TRAINING = ("seed", "steps", "patients", "scans", "manifest_hash", "precision", "loss", "device")
FITTED_HERE = "the temperature of the scores was fitted on these very scores"
APPARENT = "apparent: the threshold was chosen on these very scores"
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
    units = {name: unit_record(evidence, name) for name in ("patient", "scan", "slice")}
    run, groups = run_record(evidence), subgroups(evidence)
    record: Record = {
        "schema": SCHEMA,
        "intended_use": USE,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run,
        "nominal": is_nominal(evidence),
        **units,
        "lesion": lesion_record(evidence),
        "operating_point": operating_point(evidence),
        "calibration": calibration_record(evidence),
        "decision_curve": decision_record(evidence),
        "froc": froc_record(evidence),
        "segmentation": segmentation_record(evidence),
        "subgroups": groups,
        "subgroup_tests": subgroup_tests(groups),
        "case_mix": case_mix(evidence),
        "flow": flow(evidence),
        "failures": failures(evidence),
        "robustness": robustness_record(evidence),
        "comparison": compare_runs(evidence, others),
        "looks": looks_record(evidence.results.folder, str(run["model_id"])),
        "study": dict(evidence.results.study),
        **classes_record(evidence),
    }
    record |= {"notes": notes(record, evidence)}
    return record | {"checklists": checklists(record)}


def run_record(evidence: Evidence) -> Record:
    """Which model, software and data; a fixed choice of keys, so that nothing else of a run leaks into a report."""
    run = evidence.results.run
    names = ("model_id", "task", "level", "config_hash", "versions", "started", "finished", "split", "class_names", "lineage", "leakage")
    described = ("architecture", "preprocess", "intake", "calibration")
    models = sorted({scan.case.finding.model_id for scan in evidence.scans})
    software = {"report_software": f"medssl {importlib.metadata.version('medssl')}"}
    said = run.get("training")
    training: Record = said if isinstance(said, dict) else {}
    made = {"training": {name: training[name] for name in _TRAINING if name in training}, **{name: run.get(name) for name in described}}
    return {name: run.get(name) for name in names} | made | {"model_id": run.get("model_id") or ", ".join(models)} | software


def is_nominal(evidence: Evidence) -> bool:
    """Whether volumes and distances mean voxels, because the scans have no physical geometry."""
    scored = [scan.case.finding.nominal for scan in evidence.scans if not scan.case.rejected]
    return bool(evidence.results.run.get("nominal")) or (bool(scored) and all(scored))


def unit_record(evidence: Evidence, unit: str) -> Record:
    """The ten numbers of patients, scans or slices, with the table they come from; rates at a refused threshold are not given."""
    units, threshold = evidence.units[unit], evidence.thresholds[unit]
    clustered = unit == "slice"
    found = classification.assess(units, threshold=threshold, clustered=clustered)
    if unit in evidence.refused:
        found = found | dict.fromkeys((*_RATES, "precision", "recall", "f1"), refused(evidence.refused[unit]))
    elif is_apparent(evidence.results.run, "scan" if unit == "patient" else unit):
        found = found | {name: marked_apparent(found[name]) for name in (*_RATES, "precision", "recall", "f1")}
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


def refused(why: str) -> Metric:
    """A rate that is not given because its threshold is newer than the scores."""
    return unmeasured(f"refused: {why}")


def marked_apparent(metric: Metric) -> Metric:
    """A rate at a threshold that was chosen on the very scores."""
    return metric if metric.value is None else replace(metric, note="; ".join(filter(None, (metric.note, APPARENT))))


def masks_apparent(evidence: Evidence) -> bool:
    """Whether the threshold of masks, or of the lesions of a detector, was chosen on the very scores."""
    return any(is_apparent(evidence.results.run, unit) for unit in ("voxel", "lesion"))


def _with_patient_intervals(units: Units, threshold: float | None, found: Mapping[str, Metric]) -> dict[str, Metric]:
    """The rates of scans, with the interval that heeds that some scans are of one patient beside Wilson's."""
    drawn = classification.assess(units, threshold=threshold, clustered=True)
    names = [name for name in (*_RATES, "precision", "recall", "auroc") if drawn[name].ci95 is not None]
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
    """The ten numbers of lesions; those that need negatives are null, and all at a refused threshold."""
    marks, why = evidence.marks, evidence.masks_refused
    found = lesions.assess(marks) | {"false_positives_per_scan": lesions.false_positives_per_scan(marks)}
    if why:
        found |= dict.fromkeys(("sensitivity", "ppv", "precision", "recall", "f1", "false_positives_per_scan"), refused(why))
    elif masks_apparent(evidence):
        found = {name: marked_apparent(metric) for name, metric in found.items()}
    return {
        "n": sum(scan.n_lesions for scan in marks),
        "n_scans": len(marks),
        "rule": evidence.lesion_rule,
        **{name: metric.to_json() for name, metric in found.items()},
        "counts": {}
        if why
        else {
            "found": sum(len(scan.hits) for scan in marks),
            "missed": sum(scan.n_lesions - len(scan.hits) for scan in marks),
            "false_marks": sum(len(scan.alarms) for scan in marks),
            "second_marks": sum(len(scan.duplicates) for scan in marks),
        },
    }


def froc_record(evidence: Evidence) -> Record:
    """FROC and CPM; marks are made at a threshold, so that there is no curve where that is refused."""
    if not evidence.masks_refused:
        return lesions.froc(evidence.marks, rule=evidence.lesion_rule)
    return lesions.froc((), rule=evidence.lesion_rule) | {"cpm": refused(evidence.masks_refused).to_json()}


def operating_point(evidence: Evidence) -> Record:
    """The locked point of scans on top, those of all units below `by_unit`."""
    names = ("threshold", "rule", "chosen_on", "locked_at", "n", "n_positive", "sensitivity", "specificity", "evidence_sha256")
    points = points_of(evidence.results.run)
    scan = points.get("scan", {})
    top = {name: scan.get(name) for name in names} | {"unit": "scan", "threshold": evidence.thresholds["scan"]}
    top |= {"refused": dict(evidence.refused), "doubts": doubts(evidence.results.run)}
    return top | {"decision": "positive = score >= threshold; a patient counts by the highest scan", "by_unit": points}


def calibration_record(evidence: Evidence) -> Record:
    """Calibration of the score of scans; none of one class, nor of scores that were tempered on these scans."""
    units, tempered = evidence.units["scan"], is_tempered_here(evidence.results.run, "scan")
    table = [asdict(one) for one in calibration.reliability(units.labels, units.scores)] if len(units.labels) and not tempered else []
    assessed = calibration.assess(units)
    if units.missing or tempered:  # of one class any score can look calibrated
        assessed = dict.fromkeys(assessed, unmeasured(units.missing or FITTED_HERE, n=len(units.labels)))
    found = {name: metric.to_json() for name, metric in assessed.items()}
    return {"unit": "scan", "definition": calibration.DEFINITION, "n": len(units.labels), **found, "bins": table}


def decision_record(evidence: Evidence) -> Record:
    """The decision curve of the score of scans, taken for a probability; none of scores that were tempered on these scans."""
    curve = decision.decision_curve(evidence.units["scan"])
    if is_tempered_here(evidence.results.run, "scan"):
        curve = decision.DecisionCurve((), (), (), (), "none", curve.n, unmeasured(FITTED_HERE).note)
    return {"unit": "scan", "definition": decision.DEFINITION, **asdict(curve)}


def segmentation_record(evidence: Evidence) -> Record:
    """Agreement of masks, scan by scan and together; nothing of masks at a refused threshold."""
    why = evidence.masks_refused
    pairs = [] if why else evidence.overlaps
    compared = [(scan, overlap) for scan, overlap in pairs if overlap.status != "both_empty"]
    columns: dict[str, list[tuple[Measured, float | None]]] = {
        "dice": [(scan, overlap.dice) for scan, overlap in compared],
        "dice_with_lesion": [(scan, overlap.dice) for scan, overlap in compared if overlap.status != "truth_empty"],
        "hd95_mm": [(scan, overlap.hd95_mm) for scan, overlap in compared],
        "surface_dice": [(scan, overlap.surface_dice) for scan, overlap in compared],
        "volume_error_ml": [(scan, overlap.volume_error_ml) for scan, overlap in compared],
    }
    summary = {
        name: segmentation.summarise(
            [value for _, value in column if value is not None],
            [scan.case.patient for scan, _ in column],
            bounds=segmentation.BOUNDS.get(name, segmentation.SHARE),
        )
        for name, column in columns.items()
    }
    if why:
        summary = {name: one | {"note": refused(why).note} for name, one in summary.items()}
    elif masks_apparent(evidence):
        summary = {name: one | {"note": "; ".join(filter(None, (str(one.get("note", "")), APPARENT)))} for name, one in summary.items()}
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
