"""What a reader must know before believing a number: sizes, exclusions, and what these results cannot say."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medssl.evaluation.classification import NAMES
from medssl.report.evidence import Evidence
from medssl.report.lock import moment
from medssl.report.looks import look_notes

NO_PANEL = "No robustness to damaged or repeated scans was measured here; medssl evaluate --robustness does."
_FEW_POSITIVES = 10
_RATES = ("sensitivity", "specificity")
_LEAST_SENSITIVITY = 0.5


def notes(record: Mapping[str, Any], evidence: Evidence) -> list[str]:
    """Sentences for the report, the weightiest first."""
    found = [
        *_leakage(evidence),
        *_reference(record, evidence),
        *_size(record),
        *_lock(record),
        *_flow(record, evidence),
        *_units(record),
        *_maps(evidence),
        *look_notes(record["looks"]),
    ]
    if record["nominal"]:
        found.append("The scans have no physical geometry: volumes and distances are nominal (one voxel counts as 1 mm), not millilitres.")
    return [*found, *record["comparison"]["notes"], *_limits(record)]


def _leakage(evidence: Evidence) -> Iterator[str]:
    """What the scoring found the model to have seen before, and leakage that somebody allowed."""
    said = evidence.results.run.get("leakage")
    yield from (str(sentence) for sentence in (said if isinstance(said, list) else ()))


def _reference(record: Mapping[str, Any], evidence: Evidence) -> Iterator[str]:
    if not evidence.results.has_reference:
        yield (
            "There is no reference: this report cannot say how often the model is right. Give the truth with "
            "medssl report RESULTS --reference FILE.csv (columns scan_id, label; where known lesion, patient, site)."
        )
    elif record["scan"]["n"] == 0:
        yield "The reference answers for none of the scored scans: nothing can be said about how often the model is right."
    unmatched = record["flow"]["reference_without_result"]
    if unmatched:
        yield f"{unmatched} scans of the reference are not in the results folder; they are in no number of this report."
    if record["scan"]["n"] and any(scan.case.truth and not scan.case.truth.patient for scan in evidence.analysed):
        yield "Some scans have no patient in the reference: each of them counts as a patient of its own."


def _size(record: Mapping[str, Any]) -> Iterator[str]:
    unit = record["patient"]
    if unit["n"] == 0:
        return
    low = unit["sensitivity"]["ci95"][0]
    if unit["n_positive"] < _FEW_POSITIVES or (low is not None and low < _LEAST_SENSITIVITY):
        yield (
            f"Too small to conclude: {unit['n_positive']} positive of {unit['n']} patients. The interval of sensitivity has to be read, "
            "not its value."
        )
    widths = {name: (unit[name]["ci95"][1] - unit[name]["ci95"][0]) / 2 for name in _RATES if unit[name]["value"] is not None}
    if widths:
        told = ", ".join(f"{name} {width:.3f} ({unit[name]['n']} patients)" for name, width in widths.items())
        yield f"Half width of the 95 % interval at this size: {told}."
    for name in _RATES:
        if unit[name]["value"] is None:
            yield f"The {name} of patients {unit[name]['note']}."


def _lock(record: Mapping[str, Any]) -> Iterator[str]:
    point = record["operating_point"]
    if point["refused"]:
        units = ", ".join(f"{unit}s" for unit in point["refused"])
        yield (
            f"Rates of {units} are refused: {next(iter(point['refused'].values()))}. A threshold that may have been chosen with these "
            "scores in sight tests nothing. Areas under curves need no threshold and stand."
        )
        return
    if point["threshold"] is None:
        yield "No threshold was locked: rates that need one cannot be measured."
        return
    if moment(point.get("locked_at")) is None:
        yield "It is not known when the operating point was chosen, so it may have been chosen after seeing these scans."
    if point.get("chosen_on") not in (None, "validation", "out-of-fold scores"):
        yield f"The operating point was chosen on {point['chosen_on']}, not on validation."


def _limits(record: Mapping[str, Any]) -> Iterator[str]:
    yield "No comparison with readers was made here."
    if record["robustness"]["panel"] is None:
        yield NO_PANEL
    missing = [name.replace("_mm", "").replace("_ml", " size") for name in record["case_mix"]["missing"]]
    if missing and record["scan"]["n"]:
        yield f"Nothing is known of {', '.join(missing)}: add these columns to the reference table, so that the case mix can be judged."
    if "reference_standard" not in record["study"]:
        yield "How the reference standard was made (readers, adjudication, agreement) is not stated; a file study.json can state it."


def _flow(record: Mapping[str, Any], evidence: Evidence) -> Iterator[str]:
    flow = record["flow"]
    if flow["rejected"]:
        yield f"{flow['rejected']} of {flow['found']} scans were rejected at intake; 'intention to score' counts them as wrong answers."
    if flow["without_finite_score"]:
        yield f"{flow['without_finite_score']} scans have no finite score; they are left out of every rate."
    models = {scan.case.finding.model_id for scan in evidence.scans}
    if len(models) > 1:
        yield f"The folder holds findings of {len(models)} models; the numbers mix them."


def _units(record: Mapping[str, Any]) -> Iterator[str]:
    scans, patients = record["scan"]["n"], record["scan"]["n_patients"]
    if patients < scans:
        yield (
            f"{scans} scans are of {patients} patients: Wilson's interval takes scans as independent, the one 'drawn by patient' beside it "
            "does not."
        )
    if record["scan"]["n"] and record["slice"]["n"] == 0:
        yield "Slices cannot be judged: the model gives no score for each slice, or the reference has no mask."
    elif record["slice"]["n"] and record["slice"]["threshold"] is None and record["slice"]["auroc"]["value"] is not None:
        yield "No threshold was locked for slices: only their areas are given."
    if record["slice"]["n"] and any(record["slice"][name]["value"] is not None for name in NAMES):
        yield "Slices of one patient are alike; their intervals are drawn by patient, and slices never stand for patients."


def _maps(evidence: Evidence) -> Iterator[str]:
    for problem, count in Counter(scan.problem for scan in evidence.scans if scan.problem).items():
        yield f"{count} scans: {problem}."
