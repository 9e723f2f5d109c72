"""The scans of this report against the same scans scored by other models: every number is this run minus the other.

A scan that only one of two runs scored is left out and counted; for its patient it is like a rejected scan, without a score but with an
answer that counts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import UsageError
from medssl.evaluation import comparison
from medssl.evaluation.comparison import Pairs
from medssl.evaluation.metric import Metric
from medssl.report.cases import Case, read_results
from medssl.report.evidence import Evidence, Measured, gather, patient_units, scan_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from medssl.report.figures import Picture

FORGONE = (
    "No comparison with another model or with training without pretraining was made here; "
    "medssl report RESULTS --against OTHER_RESULTS makes one."
)
_NO_SCRATCH = (
    "None of the compared models was trained without pretraining, so what pretraining brings cannot be said. Train one from scratch, "
    "score the same scans and give its results with --against."
)
_METHODS = (
    "Paired DeLong (a test of permutations where a class has fewer than 10 units or a model separates the classes) and McNemar (exact) for "
    "units that count as independent, else the bootstrap of 10 patients or more; p_holm is adjusted by Holm for "
    "all tests of this section. A p that is not small is no claim that two models are equal."
)

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Shared:
    """What two runs say of the same scans, in one order.

    Args:
        first: Every scan of this run; those that only one run scored are withheld.
        second: The same scans of the other run.
        scored: Scans that both scored and whose answer is known.
        only_first: Scans that only this run scored.
        only_second: Scans that only the other scored.
    """

    first: tuple[Measured, ...]
    second: tuple[Measured, ...]
    scored: tuple[tuple[Measured, Measured], ...]
    only_first: int
    only_second: int


def read_others(folders: Sequence[Path], results: Path, *, reference: Path | None) -> list[Evidence]:
    """The other runs; one without a reference of its own is held against that of this run.

    Raises:
        UsageError: A folder is this run itself, or is given twice.
    """
    places = [folder.resolve() for folder in (results, *folders)]
    if len(set(places)) < len(places):
        raise UsageError("--against names the results themselves, or one folder twice; give the results of another model on the same scans")
    own = results / "reference.csv"
    tables = [reference or (None if (folder / "reference.csv").is_file() or not own.is_file() else own) for folder in folders]
    return [gather(read_results(folder, reference=table)) for folder, table in zip(folders, tables, strict=True)]


def compare_runs(evidence: Evidence, others: Sequence[Evidence]) -> Record:
    """The record `comparison` of `metrics.json`.

    Raises:
        UsageError: The references differ, or no scan with a known answer was scored by both.
    """
    runs = [_run(evidence, other) for other in others]
    _adjust(runs)
    tests = sum(test["p"] is not None for run in runs for test in run["tests"])
    scratch = [is_from_scratch(one) for one in (evidence, *others)]
    notes = [FORGONE] if not others else [_METHODS, *([] if True in scratch else [_NO_SCRATCH]), *_notes(runs)]
    return {"this_from_scratch": scratch[0], "runs": runs, "n_tests": tests, "notes": notes}


def is_from_scratch(evidence: Evidence) -> bool | None:
    """Whether the model started from random weights; None where `run.json` does not say."""
    lineage = evidence.results.run.get("lineage")
    return None if not isinstance(lineage, list) else not lineage


def _run(evidence: Evidence, other: Evidence) -> Record:
    shared = share(evidence, other)
    return {
        "name": _name(other),
        "model_id": other.results.run.get("model_id"),
        "from_scratch": is_from_scratch(other),
        "n_scans": len(shared.scored),
        "left_out": {"scored_by_this_alone": shared.only_first, "scored_by_other_alone": shared.only_second},
        "tests": list(_tests(shared, evidence, other)),
        "notes": [*_doubts(shared), *_refusals(evidence, other)],
    }


def _name(other: Evidence) -> str:
    """The folder and the model: folders of several runs are often called alike."""
    model = other.results.run.get("model_id")
    return f"{other.results.folder.name} ({model})" if model else other.results.folder.name


def share(evidence: Evidence, other: Evidence) -> Shared:
    """The scans of two runs, paired.

    Raises:
        UsageError: The references differ, or nothing is shared.
    """
    mine, theirs = ({scan.case.scan_id: scan for scan in one.scans} for one in (evidence, other))
    names = sorted(mine.keys() | theirs.keys())
    known = [(mine[name], theirs[name]) for name in names if name in mine and name in theirs]
    _check_answers([(one, two) for one, two in known if one.case.has_score and two.case.has_score], other)
    both = {name for name in names if _is_scored(mine.get(name)) and _is_scored(theirs.get(name))}
    if not both:
        raise UsageError(f"no scan with a known answer was scored here and in {other.results.folder.name}; score the same scans with both")
    first = tuple(mine[name] if name in both else _withheld(mine.get(name) or theirs[name]) for name in names)
    second = tuple(theirs[name] if name in both else _withheld(mine.get(name) or theirs[name]) for name in names)
    scored = tuple((mine[name], theirs[name]) for name in names if name in both)
    return Shared(first, second, scored, *(sum(_is_scored(scan) for scan in one.values()) - len(both) for one in (mine, theirs)))


def _is_scored(scan: Measured | None) -> bool:
    return scan is not None and scan.case.has_score and scan.label is not None


def _withheld(scan: Measured) -> Measured:
    return Measured(Case(replace(scan.case.finding, status="rejected"), scan.case.truth), scan.label)


def _check_answers(pairs: Sequence[tuple[Measured, Measured]], other: Evidence) -> None:
    """Refuse runs whose answers differ: the difference would be one of references, not of models."""
    differing = Counter(
        kind
        for one, two in pairs
        for kind, differs in {
            "label": one.label != two.label,
            "patient": one.case.patient != two.case.patient,
            "mask": _masks_differ(one, two),
        }.items()
        if differs
    )
    if differing:
        found = ", ".join(f"the {kind} of {count}" for kind, count in differing.items())
        raise UsageError(
            f"the reference of {other.results.folder.name} differs from this one: {found} of {len(pairs)} shared scans; "
            "give one table for both with --reference"
        )


def _masks_differ(one: Measured, two: Measured) -> bool:
    """Whether the true masks differ on one grid; masks on other grids are not comparable voxel by voxel."""
    if one.overlap is None or two.overlap is None or not _same_grid(one, two):
        return False
    apart = abs(one.overlap.true_ml - two.overlap.true_ml) > 1e-6
    if apart or one.slice_labels is None or two.slice_labels is None:
        return apart
    return not np.array_equal(one.slice_labels, two.slice_labels)


def _same_grid(one: Measured, two: Measured) -> bool:
    a, b = one.case.finding, two.case.finding
    return a.shape == b.shape and np.allclose(a.spacing_mm or (1, 1, 1), b.spacing_mm or (1, 1, 1), atol=1e-3)


def _tests(shared: Shared, evidence: Evidence, other: Evidence) -> Iterator[Record]:
    """Every difference, each with its test; scans only where they are not the patients all over again."""
    patients = Pairs(patient_units(shared.first), patient_units(shared.second))
    scans = Pairs(scan_units(shared.first), scan_units(shared.second))
    slices = _slice_pairs(shared)
    units = {"patient": patients} | ({"scan": scans} if len(scans.first.labels) != len(patients.first.labels) else {}) | {"slice": slices}
    for unit, pairs in units.items():
        found = _differences(pairs, evidence.thresholds[unit], other.thresholds[unit])
        yield from ({"unit": unit, "name": name, **_worded(metric)} for name, metric in found.items())
    refused = evidence.masks_refused or other.masks_refused
    for name, metric in ({} if refused else _mask_differences(shared)).items():
        yield {"unit": "lesion" if name == "sensitivity" else "scan", "name": name, **_worded(metric)}


def _slice_pairs(shared: Shared) -> Pairs:
    """Slices of the scans that both runs cut alike."""
    kept = [
        (one, two, one.slice_labels)
        for one, two in shared.scored
        if one.slice_labels is not None and two.slice_labels is not None and np.array_equal(one.slice_labels, two.slice_labels)
    ]
    labels = [answers for _, _, answers in kept]
    return Pairs.of(
        "slice",
        labels=np.concatenate(labels) if kept else [],
        first=np.concatenate([one.case.finding.slice_scores for one, _, _ in kept]) if kept else [],
        second=np.concatenate([two.case.finding.slice_scores for _, two, _ in kept]) if kept else [],
        patients=np.repeat(np.array([one.case.patient for one, _, _ in kept], dtype=str), [len(part) for part in labels]),
    )


def _differences(pairs: Pairs, threshold: float | None, other_threshold: float | None) -> dict[str, Metric]:
    """AUROC, sensitivity and specificity of a unit, each run at its own locked threshold; bootstrapped where patients have several."""
    units = pairs.first
    alone = len(np.unique(units.patients)) == len(units.labels)
    drawn = comparison.area_difference(pairs)
    area = _with_patients(comparison.paired_delong(pairs), drawn) if alone else drawn
    if threshold is None or other_threshold is None:
        return {"auroc": area}
    truth = units.labels.astype(bool)
    right = [(side.scores >= at) == truth for side, at in ((pairs.first, threshold), (pairs.second, other_threshold))]
    found = {"auroc": area}
    for name, kind, among in (("sensitivity", "positive", truth), ("specificity", "negative", ~truth)):
        empty = f"no {kind} {units.unit}"
        first, second = (part & among for part in right)
        spread = comparison.clustered_difference(first, second, among, patients=units.patients, empty=empty)
        tested = comparison.paired_shares(*(part[among] for part in right), empty=empty) if alone else spread
        found[name] = _with_patients(tested, spread) if alone else spread
    return found


def _with_patients(tested: Metric, drawn: Metric) -> Metric:
    """A tested difference with the interval drawn by patient beside it, where there is one."""
    return tested if drawn.ci95 is None else replace(tested, beside={**tested.beside, "patients95": list(drawn.ci95)})


def _mask_differences(shared: Shared) -> dict[str, Metric]:
    """Mean Dice of the scans with a true lesion, and the share of lesions found; nothing where there are no masks."""
    masked = [
        (one.case.patient, one.overlap, two.overlap) for one, two in shared.scored if one.overlap is not None and two.overlap is not None
    ]
    if not masked:
        return {}
    held = [(patient, a.dice or 0.0, b.dice or 0.0) for patient, a, b in masked if a.true_ml > 0 and b.true_ml > 0]
    patients, first, second = (np.array([row[column] for row in held]) for column in range(3))
    empty = "no scan with a true lesion and two masks"
    dice = comparison.clustered_difference(first, second, np.ones(len(held)), patients=patients, empty=empty)
    matched = [(one.marks, two.marks) for one, two in shared.scored if one.marks is not None and two.marks is not None]
    matched = [(one, two) for one, two in matched if one.n_lesions == two.n_lesions]
    found = comparison.clustered_difference(
        [len(one.hits) for one, _ in matched],
        [len(two.hits) for _, two in matched],
        [one.n_lesions for one, _ in matched],
        patients=np.array([one.patient for one, _ in matched], dtype=str),
        empty="no true lesion",
    )
    return {"dice_with_lesion": dice, "sensitivity": found}


def _worded(metric: Metric) -> Record:
    """A difference as JSON, its sides named as in a report."""
    names = {"first": "this", "second": "other", "only_first_right": "only_this_right", "only_second_right": "only_other_right"}
    return {names.get(key, key): value for key, value in metric.to_json().items()}


def _adjust(runs: Sequence[Record]) -> None:
    """Write `p_holm` beside every p of all runs together."""
    tests = [test for run in runs for test in run["tests"]]
    made = [test for test in tests if test["p"] is not None]
    for test in tests:
        test["p_holm"] = None
    for test, adjusted in zip(made, comparison.holm([test["p"] for test in made]), strict=True):
        test["p_holm"] = float(adjusted)


def _doubts(shared: Shared) -> Iterator[str]:
    """What makes the pairs of one comparison doubtful."""
    grids = sum(not _same_grid(one, two) for one, two in shared.scored)
    if grids:
        yield f"{grids} scans lie on different grids in the two runs: their masks and slices are compared each on its own grid."
    patients = len({one.case.patient for one, _ in shared.scored})
    if patients < len(shared.scored):
        yield f"{len(shared.scored)} scans are of {patients} patients: differences of scans are tested by the bootstrap of patients."


def _refusals(evidence: Evidence, other: Evidence) -> Iterator[str]:
    for whose, run in (("this model", evidence), ("the other model", other)):
        if run.refused:
            units = ", ".join(f"{unit}s" for unit in run.refused)
            yield f"the thresholds of {whose} ({units}) are refused, being newer than its scores: what rests on them is not compared."


def _notes(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for run in runs:
        left = run["left_out"]
        yield (
            f"Against {run['name']}: {run['n_scans']} scans that both scored; left out are {left['scored_by_this_alone']} that only this "
            f"model scored and {left['scored_by_other_alone']} that only the other scored."
        )
        yield from (f"Against {run['name']}: {note}" for note in run["notes"])


def draw_comparison(record: Mapping[str, Any]) -> "list[Picture]":
    """Every difference with its interval, this run minus the others; nothing where nothing was compared."""
    from medssl.report.document import words
    from medssl.report.figures import BLUE, GREY, ORANGE, picture

    rows = [(run["name"], test) for run in record["runs"] for test in run["tests"] if test["value"] is not None]
    if not rows:
        return []

    def draw(axes: "Axes") -> None:
        for place, (_, test) in enumerate(reversed(rows)):
            low, high = test["ci95"]
            clear = low is not None and (low > 0 or high < 0)
            if low is not None:
                axes.plot([low, high], [place, place], color=ORANGE if clear else BLUE, linewidth=2, linestyle="-" if clear else "--")
            axes.plot(
                test["value"], place, "s" if clear else "o", color=ORANGE if clear else BLUE, markerfacecolor=None if clear else "white"
            )
        axes.axvline(0, color=GREY, linewidth=0.8)
        names = [f"{test['unit']}: {words(test['name'])} - {name[:32]}" for name, test in reversed(rows)]
        axes.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
        axes.set(xlabel="this model minus the other", ylim=(-0.7, len(rows) - 0.3))

    caption = (
        "Differences on the scans that both models scored, with 95 % intervals; right of 0 this model is better. Full squares: the "
        "interval does not hold 0 (before any correction for the number of tests)."
    )
    return [picture("comparison", "This model minus others", caption, draw, size=(6.4, 1.2 + 0.28 * len(rows)))]
