"""Which items of the reporting checklists this report answers, and which are missing, from what its record truly holds.

Items in short words of ours, with the numbers of the sources where those have them:
CLAIM, 2024 update, https://doi.org/10.1148/ryai.240300; STARD 2015, https://doi.org/10.1136/bmj.h5527, with STARD-AI (Nature
Medicine, 2025); TRIPOD+AI, 2024, https://doi.org/10.1136/bmj-2023-078378; Metrics Reloaded, 2024,
https://doi.org/10.1038/s41592-023-02151-z; FUTURE-AI, 2025, https://doi.org/10.1136/bmj-2024-081554; FDA, Clinical Performance
Assessment of CADe devices, 2022. An item that holds for a paper's text (title, abstract, discussion) is not listed: no report can answer
it.
"""

from collections.abc import Mapping
from typing import Any

from medssl.evaluation.classification import NAMES
from medssl.evaluation.few import FEW_IN_GROUP
from medssl.report.checklist_items import CHECKLISTS
from medssl.report.study import STATEMENTS

Record = dict[str, Any]

_CHOSEN_ON = ("validation", "out-of-fold scores")
_KINDS = ("site", "vendor", "sex", "age", "lesion size")


def checklists(record: Mapping[str, Any]) -> list[Record]:
    """Each checklist with its answered and missing items; `where` names the part of the report, `needs` what would answer the item."""
    held = {name: bool(value) for name, value in facts(record).items()}
    return [
        {
            "name": name,
            "items": len(items),
            "answered": [{"item": item, "where": _name(fact)} for item, fact in items if held[fact]],
            "missing": [{"item": item, "needs": _needs(fact)} for item, fact in items if not held[fact]],
        }
        for name, items in CHECKLISTS.items()
    ]


def facts(record: Mapping[str, Any]) -> dict[str, object]:
    """What the record holds; a value that is true says so."""
    stated = {f"study.{key}": record["study"].get(key) for key in STATEMENTS}
    return {"never": False, **stated, **_of_run(record), **_of_scans(record), **_of_numbers(record)}


def _of_run(record: Mapping[str, Any]) -> dict[str, object]:
    """What is told of the model, its training and what it has seen."""
    run, looks = record["run"], record["looks"]
    return {
        "versions": run["model_id"] and run["versions"] and run["config_hash"],
        "training": run["training"],
        "pretraining": run["lineage"] is not None,
        "architecture": run["architecture"],
        "preprocess": run["preprocess"],
        "task": run["task"],
        "split": run["split"] and run["leakage"] is not None,
        "independent": run["split"] and run["leakage"] == [],
        "operating_point": _is_locked(record),
        "fixed": _is_locked(record) and _is_fixed(record),
        "recalibration": run["calibration"] is not None,
        "looks": looks["is_logged"],
        "reuse": looks["is_logged"] and not looks["other_models"] and not looks["unreadable"],
    }


def _of_scans(record: Mapping[str, Any]) -> dict[str, object]:
    """What is told of the scans and of the patients."""
    flow, missing, scans = record["flow"], set(record["case_mix"]["missing"]), record["scan"]["n"] > 0
    return {
        "flow": flow["found"],
        "exclusions": flow["found"] and scans,
        "demographics": scans and not {"age", "sex"} & missing,
        "scanners": scans and not {"vendor", "field"} & missing,
        "lesion_size": scans and "lesion_ml" not in missing,
        "prevalence": record["patient"]["n"] > 0,
        "subgroups": any(len(record["subgroups"].get(kind, ())) > 1 for kind in _KINDS),
        "fairness": _is_compared(record, "sex") or _is_compared(record, "age"),
        "sites": _is_compared(record, "site"),
        "external": record["study"].get("external_test") or record["robustness"]["sites"]["left_out"],
    }


def _of_numbers(record: Mapping[str, Any]) -> dict[str, object]:
    """What was measured, with its uncertainty."""
    patient, panel = record["patient"], record["robustness"]["panel"]
    return {
        "rates": _is_measured(patient["sensitivity"]) and _is_measured(patient["specificity"]),
        "table": patient["n"] > 0 and "counts" in patient,
        "intervals": any(_has_interval(patient[name]) for name in NAMES),
        "clustering": patient["n"] > 0 and _heeds_patients(record),
        "auroc": _is_measured(patient["auroc"]),
        "at_prevalence": patient.get("at_prevalence"),
        "lesions": record["lesion"]["n"] > 0,
        "lesion_rates": _is_measured(record["lesion"]["sensitivity"]),
        "froc": record["froc"]["n_lesions"],
        "outlines": record["segmentation"]["per_scan"],
        "calibration": _is_measured(record["calibration"]["slope"]),
        "failures": record["failures"]["false_negatives"] is not None and record["scan"]["n"] > 0,
        "decision": record["decision_curve"]["model"],
        "robustness": panel and panel["conditions"],
        "comparison": record["comparison"]["runs"],
    }


def _is_locked(record: Mapping[str, Any]) -> bool:
    """Whether there is a threshold of which is told when it was chosen, and on what."""
    point = record["operating_point"]
    return point["threshold"] is not None and bool(point["locked_at"]) and point["chosen_on"] in _CHOSEN_ON and not point["refused"]


def _is_fixed(record: Mapping[str, Any]) -> bool:
    """Whether the threshold was fixed before the scores and on other scans, and its evidence can be checked."""
    run, point = record["run"], record["operating_point"]
    apart = run["split"] != "cross-validation" and not run["leakage"]
    return apart and bool(run["started"]) and bool(point["evidence_sha256"])


def _is_compared(record: Mapping[str, Any], kind: str) -> bool:
    """Whether at least two groups of a kind are large enough to be compared, and each has both rates."""
    groups = [group for group in record["subgroups"].get(kind, ()) if group["n"] >= FEW_IN_GROUP]
    return sum(_is_measured(group["sensitivity"]) and _is_measured(group["specificity"]) for group in groups) > 1


def _heeds_patients(record: Mapping[str, Any]) -> bool:
    """Whether the numbers of every unit of which one patient may have several have an interval that is drawn by patient."""
    several = [unit for unit in ("scan", "slice") if record[unit]["n"] > record[unit]["n_patients"]]
    several += ["lesion"] if record["lesion"]["n"] else []
    found = [record[unit][name] for unit in several for name in ("sensitivity", "specificity", "auroc")]
    return all(_is_by_patient(metric) for metric in found if _is_measured(metric))


def _is_measured(metric: Record) -> bool:
    return metric["value"] is not None


def _has_interval(metric: Record) -> bool:
    return metric["ci95"][0] is not None


def _is_by_patient(metric: Record) -> bool:
    return "patients95" in metric or (_has_interval(metric) and "patients" in metric["method"])


_NAMES = {
    "versions": "model, software and configuration with their hashes",
    "training": "facts of the training run",
    "pretraining": "the bundles that the model started from",
    "architecture": "the architecture",
    "preprocess": "the preprocessing",
    "task": "the task",
    "split": "the split, and what was found of leakage",
    "independent": "a split in which no scan or patient was found that the model had seen",
    "flow": "flow of scans",
    "exclusions": "flow of scans, intention to score",
    "demographics": "age and sex in the reference table",
    "scanners": "vendor and field (strength or kV) in the reference table",
    "lesion_size": "true masks, for the size of lesions",
    "prevalence": "case mix: prevalence",
    "operating_point": "an operating point with its rule, locked before there were test scores",
    "fixed": "an operating point locked before there were test scores, on other scans than these, with the hash of its evidence",
    "rates": "sensitivity and specificity of patients",
    "table": "confusion tables",
    "intervals": "95 % intervals, with their method",
    "clustering": "intervals drawn by patient for scans, slices and lesions",
    "auroc": "AUROC and AUPRC of patients",
    "at_prevalence": "PPV and NPV at several prevalences",
    "lesions": "numbers of lesions, with the matching rule",
    "lesion_rates": "sensitivity of lesions and false positives per scan",
    "froc": "FROC",
    "outlines": "segmentation",
    "calibration": "calibration of the scan score",
    "subgroups": "subgroups (two or more values of site, vendor, sex, age or lesion size)",
    "fairness": f"rates by sex or age in two or more groups of at least {FEW_IN_GROUP} scans",
    "sites": f"rates of two or more sites of at least {FEW_IN_GROUP} scans",
    "external": "a statement of what makes the test scans external (study.json: external_test), or sites left out of training",
    "failures": "false negatives and false positives, with pictures",
    "looks": "the log of looks at the test scans",
    "reuse": "a log of looks in which no other model was tried on these scans",
    "decision": "a decision curve",
    "robustness": "a robustness panel (medssl evaluate --robustness)",
    "comparison": "a comparison with another model on the same scans (medssl report --against)",
    "recalibration": "calibration: whether scores were recalibrated, and on what",
    "never": "nothing that a report of results can hold",
}


def _name(fact: str) -> str:
    return f"the study's statement: {STATEMENTS[fact[6:]]}" if fact.startswith("study.") else _NAMES[fact]


def _needs(fact: str) -> str:
    return f"study.json: {fact[6:]}" if fact.startswith("study.") else _NAMES[fact]
