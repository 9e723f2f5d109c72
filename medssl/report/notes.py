"""What a reader must know before believing a number: sizes, exclusions, and what these results cannot say."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medssl.evaluation.classification import NAMES
from medssl.evaluation.few import FEW
from medssl.report.evidence import Evidence
from medssl.report.lock import OUT_OF_FOLD, is_tempered_here
from medssl.report.looks import look_notes

NO_PANEL = "No robustness to damaged or repeated scans was measured here; medssl evaluate --robustness does."
_RATES = ("sensitivity", "specificity")
TEMPERED = (
    "The temperature of the scores was fitted on the very out-of-fold scores that are reported: their calibration and decision curve would "
    "be apparent and are not given."
)
_LEAST_SENSITIVITY = 0.5


def notes(record: Mapping[str, Any], evidence: Evidence) -> list[str]:
    """Sentences for the report, the weightiest first."""
    found = [
        *_leakage(evidence),
        *_reference(record, evidence),
        *_size(record),
        *_lock(record, evidence),
        *_flow(record, evidence),
        *_units(record),
        *_froc(record["froc"]),
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
        yield f"{unmatched} scans of the reference are not in the results folder; only 'intention to score' counts them, as wrong."
    if record["scan"]["n"] and any(scan.case.truth and not scan.case.truth.patient for scan in evidence.analysed):
        yield "Some scans have no patient in the reference: each of them counts as a patient of its own."


def _size(record: Mapping[str, Any]) -> Iterator[str]:
    unit = record["patient"]
    if unit["n"] == 0:
        return
    low = unit["sensitivity"]["ci95"][0]
    if unit["n_positive"] < FEW or (low is not None and low < _LEAST_SENSITIVITY):
        yield (
            f"Too small to conclude: {unit['n_positive']} positive of {unit['n']} patients. The interval of sensitivity has to be read, "
            "not its value."
        )
    negative = unit["n"] - unit["n_positive"]
    if negative < FEW:
        yield f"Too small to conclude on false alarms: {negative} negative of {unit['n']} patients. Read the interval of specificity."
    widths = {name: (unit[name]["ci95"][1] - unit[name]["ci95"][0]) / 2 for name in _RATES if unit[name]["value"] is not None}
    if widths:
        told = ", ".join(f"{name} {width:.3f} ({unit[name]['n']} patients)" for name, width in widths.items())
        yield f"Half width of the 95 % interval at this size: {told}."
    for name in _RATES:
        if unit[name]["value"] is None:
            yield f"The {name} of patients {unit[name]['note']}."


def _lock(record: Mapping[str, Any], evidence: Evidence) -> Iterator[str]:
    point = record["operating_point"]
    if point["refused"]:
        units = ", ".join(f"{unit}s" for unit in point["refused"])
        yield (
            f"Rates of {units} are refused: {next(iter(point['refused'].values()))}. A threshold that may have been chosen with these "
            "scores in sight tests nothing. Areas under ROC curves need no threshold and stand; FROC and Dice rest on that of masks."
        )
        return
    if point["threshold"] is None:
        yield "No threshold was locked: rates that need one cannot be measured."
        return
    yield from point["doubts"]
    if is_tempered_here(evidence.results.run, "scan"):
        yield TEMPERED
    if point.get("chosen_on") not in (None, "validation", OUT_OF_FOLD):
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
            f"{scans} scans are of {patients} patients: the intervals of Wilson and DeLong, and calibration's, take scans as independent; "
            "the one 'drawn by patient' beside them does not, and there is none of fewer than 10 patients."
        )
    if record["scan"]["n"] and record["slice"]["n"] == 0:
        yield "Slices cannot be judged: the model gives no score for each slice, or the reference has no mask."
    elif record["slice"]["n"] and record["slice"]["threshold"] is None and record["slice"]["auroc"]["value"] is not None:
        yield "No threshold was locked for slices: only their areas are given."
    if record["slice"]["n"] and any(record["slice"][name]["value"] is not None for name in NAMES):
        yield "Slices of one patient are alike; their intervals are drawn by patient, and slices never stand for patients."


def _froc(froc: Mapping[str, Any]) -> Iterator[str]:
    if not froc["n_lesions"]:
        return
    if froc["carried"]:
        rates = ", ".join(f"{rate:g}" for rate in froc["carried"])
        yield (
            f"The FROC curve ends at {froc['ends_at']:.3g} false positives a scan: at {rates} it is carried on level, as published CPMs "
            "do, and says nothing of marks below the locked threshold."
        )
    if not froc["n_scans_without_lesion"]:
        yield "No scan without lesion is in the FROC: its false positives are those in scans that have lesions."


def _maps(evidence: Evidence) -> Iterator[str]:
    for problem, count in Counter(scan.problem for scan in evidence.scans if scan.problem).items():
        yield f"{count} scans: {problem}."
