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

from medssl.report.checklist_items import CHECKLISTS
from medssl.report.study import STATEMENTS

Record = dict[str, Any]

_CHOSEN_ON = ("validation", "out-of-fold scores")


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
    run, flow, point = record["run"], record["flow"], record["operating_point"]
    measured = {unit: record[unit]["n"] > 0 for unit in ("patient", "scan", "slice", "lesion")}
    groups = {kind: len(parts) > 1 for kind, parts in record["subgroups"].items()}
    missing = record["case_mix"]["missing"]
    locked = point["threshold"] is not None and point["locked_at"] and point["chosen_on"] in _CHOSEN_ON and not point["refused"]
    found: dict[str, object] = {
        "versions": run["model_id"] and run["versions"] and run["config_hash"],
        "training": run["training"],
        "pretraining": run["lineage"] is not None,
        "architecture": run["architecture"],
        "preprocess": run["preprocess"],
        "task": run["task"],
        "split": run["split"] and "leakage" in run and run["leakage"] is not None,
        "flow": flow["found"],
        "exclusions": flow["found"] and measured["scan"],
        "demographics": measured["scan"] and not {"age", "sex"} & set(missing),
        "scanners": measured["scan"] and not {"vendor", "field"} & set(missing),
        "lesion_size": measured["scan"] and "lesion_ml" not in missing,
        "prevalence": measured["patient"],
        "operating_point": locked,
        "rates": record["patient"]["sensitivity"]["value"] is not None and record["patient"]["specificity"]["value"] is not None,
        "table": measured["patient"] and "counts" in record["patient"],
        "intervals": measured["patient"],
        "clustering": measured["patient"],
        "auroc": record["patient"]["auroc"]["value"] is not None,
        "at_prevalence": record["patient"].get("at_prevalence"),
        "lesions": measured["lesion"],
        "froc": record["froc"]["n_lesions"],
        "outlines": record["segmentation"]["per_scan"],
        "calibration": record["calibration"]["n"] and record["calibration"]["slope"]["value"] is not None,
        "subgroups": any(groups.get(kind) for kind in ("site", "vendor", "sex", "age", "lesion size")),
        "fairness": groups.get("sex") or groups.get("age"),
        "sites": groups.get("site"),
        "failures": record["failures"]["false_negatives"] is not None and measured["scan"],
        "size": measured["patient"],
        "looks": record["looks"]["is_logged"],
        "limits": record["notes"],
        "decision": record["decision_curve"]["model"],
        "robustness": record["robustness"]["panel"],
        "comparison": record["comparison"]["runs"],
        "recalibration": run["calibration"] is not None,
        "never": False,
    }
    return found | {f"study.{key}": record["study"].get(key) for key in STATEMENTS}


_NAMES = {
    "versions": "model, software and configuration with their hashes",
    "training": "facts of the training run",
    "pretraining": "the bundles that the model started from",
    "architecture": "the architecture",
    "preprocess": "the preprocessing",
    "task": "the task",
    "split": "the split, and what was found of leakage",
    "flow": "flow of scans",
    "exclusions": "flow of scans, intention to score",
    "demographics": "age and sex in the reference table",
    "scanners": "vendor and field (strength or kV) in the reference table",
    "lesion_size": "true masks, for the size of lesions",
    "prevalence": "case mix: prevalence",
    "operating_point": "an operating point locked on validation before there were test scores",
    "rates": "sensitivity and specificity of patients",
    "table": "confusion tables",
    "intervals": "95 % intervals, with their method",
    "clustering": "intervals drawn by patient",
    "auroc": "AUROC and AUPRC of patients",
    "at_prevalence": "PPV and NPV at several prevalences",
    "lesions": "numbers of lesions, with the matching rule",
    "froc": "FROC",
    "outlines": "segmentation",
    "calibration": "calibration of the scan score",
    "subgroups": "subgroups (two or more values of site, vendor, sex, age or lesion size)",
    "fairness": "subgroups by sex or age",
    "sites": "subgroups by site (two or more sites)",
    "failures": "false negatives and false positives, with pictures",
    "size": "half widths of the intervals",
    "looks": "the log of looks at the test scans",
    "limits": "what has to be known first",
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
