"""Subgroups of scans by what the reference tells of them: rates with intervals, a warning where they are few, and tests held by Holm.

Differences between the groups of a kind are tested by Fisher's exact test (by 9,999 drawn tables for more than two groups), and all tests
together by Holm, 1979, https://www.jstor.org/stable/4615733. Where patients have several scans in a group, its intervals are drawn by
patient, and a patient counts once in a test.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation import classification
from medssl.evaluation.classification import Units
from medssl.evaluation.comparison import holm
from medssl.evaluation.few import no_conclusion
from medssl.evaluation.intervals import SEED
from medssl.evaluation.metric import Metric
from medssl.report.evidence import Evidence, Measured, scan_units

AGE_BANDS = ((18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (80, "60 to 79"), (200, "80 and over"))
TEST_RULE = (
    "Fisher's exact test of equal rates over the groups of a kind; a patient with several scans counts once, as right where all of them "
    "are called rightly; p-values held by Holm over all tests. "
    "A p-value that is not small is no proof of equality"
)
_MOST_GROUPS = 12
_DRAWN_TABLES = 9999
_AGE = re.compile(r"0*(\d{1,3}(?:\.\d+)?)\s*[Yy]?")

Record = dict[str, Any]
Groups = dict[str, list[Measured]]


def age_years(text: str) -> float | None:
    """Years of an age as tables and DICOM (`045Y`) write it; None for anything else."""
    match = _AGE.fullmatch(text.strip())
    return float(match[1]) if match and float(match[1]) < AGE_BANDS[-1][0] else None


def known(scan: Measured, name: str) -> str:
    """What the reference says of a scan, such as its `site`; empty where it says nothing."""
    return scan.case.truth.facts.get(name, "") if scan.case.truth is not None else ""


def kinds(evidence: Evidence) -> dict[str, Groups]:
    """The analysed scans in groups, by kind; a kind of which nothing is known is absent."""
    scans = evidence.analysed
    found = {
        "site": _by_value(scans, lambda scan: known(scan, "site")),
        "vendor": _by_value(scans, lambda scan: known(scan, "vendor")),
        "sex": _by_value(scans, lambda scan: known(scan, "sex")),
        "age": _by_age(scans),
        "lesion size": _by_size(scans),
        "warnings": _by_value(scans, lambda scan: "with" if scan.case.finding.warnings else "without"),
    }
    return {kind: groups for kind, groups in found.items() if groups}


def subgroups(evidence: Evidence) -> Record:
    """Rates of each group."""
    return {
        kind: [_group(name, scans, evidence.thresholds["scan"]) for name, scans in groups.items()]
        for kind, groups in kinds(evidence).items()
    }


def subgroup_tests(groups: Mapping[str, Sequence[Record]]) -> Record:
    """Whether rates differ between the groups of a kind; a rate that fewer than two groups have is not tested."""
    tests: list[Record] = [
        {"kind": kind, "rate": rate, "groups": len(tables), "p": _fisher(tables)}
        for kind, parts in groups.items()
        for rate in ("sensitivity", "specificity")
        if len(tables := [_table(part[rate]) for part in parts if part[rate]["value"] is not None]) > 1
    ]
    if not tests:
        return {"rule": TEST_RULE, "tests": []}
    held = holm([test["p"] for test in tests])
    return {"rule": TEST_RULE, "tests": [test | {"p_holm": float(p)} for test, p in zip(tests, held, strict=True)]}


def _table(rate: Mapping[str, Any]) -> tuple[int, int]:
    """Right ones of all, patients where they have several scans."""
    k, n = rate.get("patients_right", (rate["k"], rate["n"]))
    return k, n


def _fisher(tables: Sequence[tuple[int, int]]) -> float:
    from scipy.stats import MonteCarloMethod, fisher_exact

    table = np.array([(k, n - k) for k, n in tables])
    if (table.sum(axis=0) == 0).any():
        return 1.0  # all right or all wrong everywhere
    drawn = MonteCarloMethod(n_resamples=_DRAWN_TABLES, rng=np.random.default_rng(SEED)) if len(table) > 2 else None
    return float(np.ravel(fisher_exact(table, method=drawn).pvalue)[0])  # SciPy gives an array of one for some small tables


def _by_value(scans: Sequence[Measured], value: Callable[[Measured], str]) -> Groups:
    """Groups by value, sorted; beyond the twelve largest the rest stands together."""
    groups: Groups = {}
    for scan in scans:
        if value(scan):
            groups.setdefault(value(scan), []).append(scan)
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[:_MOST_GROUPS]
    rest = [scan for name, part in groups.items() if name not in largest for scan in part]
    kept = {name: groups[name] for name in sorted(largest)}
    return kept | ({f"{len(groups) - len(largest)} others together": rest} if rest else {})


def _by_age(scans: Sequence[Measured]) -> Groups:
    groups: Groups = {name: [] for _, name in AGE_BANDS}
    for scan in scans:
        years = age_years(known(scan, "age"))
        if years is not None:
            groups[next(name for below, name in AGE_BANDS if years < below)].append(scan)
    return {name: part for name, part in groups.items() if part}


def _by_size(scans: Sequence[Measured]) -> Groups:
    """Scans with lesion by thirds of their true volume."""
    sized = [(scan.overlap.true_ml, scan) for scan in scans if scan.label == 1 and scan.overlap is not None and scan.overlap.true_ml > 0]
    if len(sized) < 3:
        return {}
    unit = "nominal ml" if all(scan.case.finding.nominal for _, scan in sized) else "ml"
    low, high = (float(value) for value in np.quantile([volume for volume, _ in sized], (1 / 3, 2 / 3)))
    names = (f"small, up to {low:.3g} {unit}", f"middle, up to {high:.3g} {unit}", f"large, above {high:.3g} {unit}")
    groups: Groups = {name: [] for name in names}
    for volume, scan in sized:
        groups[names[int(volume > low) + int(volume > high)]].append(scan)
    return {name: part for name, part in groups.items() if part}


def _group(name: str, scans: Sequence[Measured], threshold: float | None) -> Record:
    units = scan_units(scans)
    numbers = {rate: metric.to_json() for rate, metric in _rates(units, threshold).items()}
    note = small(units, numbers)
    record: Record = {"group": name, "n": len(units.labels), "n_patients": len(np.unique(units.patients)), "n_positive": units.n_positive}
    return record | numbers | ({"note": note} if note else {})


def small(units: Units, numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Which of the numbers of a group of scans rest on too few, AUROC on the rarer class; empty where none does."""
    sizes = {name: one["n"] for name, one in numbers.items() if name != "auroc" and one["value"] is not None}
    if not units.missing:
        sizes["AUROC"] = min(units.n_positive, units.n_negative)
    return no_conclusion(sizes or {"all": len(units.labels)})


def _rates(units: Units, threshold: float | None) -> dict[str, Metric]:
    repeated = len(np.unique(units.patients)) < len(units.labels)
    found = classification.rates(units, threshold=threshold, clustered=repeated)
    kept = {name: found[name] for name in ("sensitivity", "specificity")}
    if repeated and threshold is not None:
        right = (units.scores >= threshold) == units.labels
        kept = {name: _with_patients(metric, units, right, int(name == "sensitivity")) for name, metric in kept.items()}
    return kept | {"auroc": classification.auroc(units, clustered=repeated)}


def _with_patients(metric: Metric, units: Units, right: NDArray[np.bool_], label: int) -> Metric:
    """A rate of scans with how many patients have all scans of the class called rightly beside it, of how many."""
    among = units.labels == label
    wrong = np.unique(units.patients[among & ~right])
    patients = len(np.unique(units.patients[among]))
    return replace(metric, beside={**metric.beside, "patients_right": [patients - len(wrong), patients]})
