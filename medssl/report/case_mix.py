"""Who and what was scanned: the case mix of the analysed scans, all together and by the true answer, with what is not known."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medssl.evaluation.intervals import proportion
from medssl.report.evidence import Evidence, Measured
from medssl.report.groups import age_years, known

Record = dict[str, Any]

FACTS = ("age", "sex", "site", "vendor", "field", "modality", "slice_mm", "lesion_ml")
_MOST_VALUES = 12


def case_mix(evidence: Evidence) -> Record:
    """Age, sex, site, vendor, field strength or tube voltage, modality, slice thickness, lesion size and prevalence.

    Returns:
        `scans` per class; `numbers` and `values`, each fact by class (`all`, `lesion`, `no lesion`); `missing`, the facts of which nothing
        is known; `prevalence` of patients and of scans.
    """
    scans = evidence.analysed
    classes = {
        "all": scans,
        "lesion": [scan for scan in scans if scan.label == 1],
        "no lesion": [scan for scan in scans if scan.label == 0],
    }
    numbers = {name: {group: _numbers(part, of) for group, part in classes.items()} for name, of in _NUMBERS.items()}
    values = {name: {group: _values(part, of) for group, part in classes.items()} for name, of in _VALUES.items()}
    return {
        "scans": {name: len(part) for name, part in classes.items()},
        "prevalence": {unit: _prevalence(evidence, unit) for unit in ("patient", "scan")},
        "numbers": {name: groups for name, groups in numbers.items() if groups["all"]["n"]},
        "values": {name: groups for name, groups in values.items() if groups["all"]["counts"]},
        "missing": [name for name in FACTS if not (numbers[name]["all"]["n"] if name in numbers else values[name]["all"]["counts"])],
    }


def _prevalence(evidence: Evidence, unit: str) -> Record:
    units = evidence.units[unit]
    return proportion(units.n_positive, len(units.labels), empty=f"no {unit} with a known answer and a score").to_json()


def _numbers(scans: Sequence[Measured], of: Callable[[Measured], float | None]) -> Record:
    found = np.array([value for scan in scans if (value := of(scan)) is not None], dtype=float)
    if not len(found):
        return {"n": 0, "unknown": len(scans), "median": None, "iqr": [None, None], "range": [None, None]}
    low, middle, high = np.percentile(found, (25, 50, 75)).tolist()
    span = [float(found.min()), float(found.max())]
    return {"n": len(found), "unknown": len(scans) - len(found), "median": middle, "iqr": [low, high], "range": span}


def _values(scans: Sequence[Measured], of: Callable[[Measured], str]) -> Record:
    counts = Counter(value for scan in scans if (value := of(scan)))
    shown = dict(sorted(counts.most_common(_MOST_VALUES)))
    others = sum(counts.values()) - sum(shown.values())
    rest = {f"{len(counts) - len(shown)} others": others} if others else {}
    return {"counts": shown | rest, "unknown": len(scans) - sum(counts.values())}


def _lesion_ml(scan: Measured) -> float | None:
    return scan.overlap.true_ml if scan.overlap is not None and scan.overlap.true_ml > 0 else None


def _slice_mm(scan: Measured) -> float | None:
    """Distance of slices of the scan as it was made; a scan without geometry has none."""
    try:
        value = float(known(scan, "slice_mm"))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 and not scan.case.finding.nominal else None


_NUMBERS: dict[str, Callable[[Measured], float | None]] = {
    "age": lambda scan: age_years(known(scan, "age")),
    "slice_mm": _slice_mm,
    "lesion_ml": _lesion_ml,
}
_VALUES: dict[str, Callable[[Measured], str]] = {
    "sex": lambda scan: known(scan, "sex"),
    "site": lambda scan: known(scan, "site"),
    "vendor": lambda scan: known(scan, "vendor"),
    "field": lambda scan: known(scan, "field"),
    "modality": lambda scan: scan.case.finding.modality,
}
