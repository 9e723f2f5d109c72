"""Robustness in the report: damaged scans against clean ones, repeated scans, and hospital by hospital."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.evaluation import classification, segmentation
from medssl.evaluation.robustness import NAMES, agreement, differences, ever_turned, measure, paired, within_case_deviation
from medssl.report.evidence import Evidence, Measured, scan_units, slice_units
from medssl.report.figures import Picture, new_figure, to_png
from medssl.report.groups import small
from medssl.report.panel import CLEAN, Panel, read_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = dict[str, Any]

UNITS = ("scan", "slice")
_SHOWN = ("scan_auroc", "slice_auroc", "dice")
_SEVERITIES = 5
_LEAST_SCALE = 0.05  # of the colours, so that small differences do not look large


def robustness_record(evidence: Evidence) -> Record:
    """The key `robustness` of `metrics.json`; `panel` is null where no scan was damaged."""
    panel = read_panel(evidence.results.folder, str(evidence.results.run.get("model_id")))
    thresholds = {unit: evidence.thresholds[unit] for unit in UNITS}
    if panel is not None and evidence.masks_refused:
        panel = panel.without_dice()
    return {"panel": None if panel is None else panel_record(panel, thresholds), "sites": site_record(evidence)}


def panel_record(panel: Panel, thresholds: Mapping[str, float | None]) -> Record:
    """What damage and repetition did."""
    facts, clean = panel.facts, measure(panel.done[CLEAN], thresholds)
    names = ("split", "seed", "patients", "of_scans", "of_patients", "done_to", "taken_for")
    conditions = [condition for condition in facts["conditions"] if condition["file"] in panel.done]
    return {
        **{name: facts[name] for name in names},
        "scans": len(facts["scans"]),
        "scan_ids": facts["scans"],
        "thresholds": dict(thresholds),
        "names": {name: title for name, title in NAMES.items() if name in clean},
        "clean": {name: {"value": found.value, "k": found.k, "n": found.n} for name, found in clean.items()},
        "conditions": [_damage(panel, condition, thresholds) for condition in conditions if condition["group"] == "damage"],
        "again": {unit: _again(panel, conditions, unit, thresholds[unit]) for unit in UNITS},
        "again_differences": [_damage(panel, condition, thresholds) for condition in conditions if condition["group"] == "again"],
        "not_done": len(facts["conditions"]) - len(conditions),
    }


def _damage(panel: Panel, condition: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> Record:
    clean, shown = paired(*panel.pair(condition["file"]))
    found = differences(measure(clean, thresholds), measure(shown, thresholds))
    kept = {name: condition[name] for name in ("name", "what", "severity", "parameter", "amount") if name in condition}
    without = sum(not outcome.is_scored for outcome in shown)
    return kept | {"scans": len(shown), "without_score": without, "differences": {name: one.to_json() for name, one in found.items()}}


def _again(panel: Panel, conditions: Sequence[Mapping[str, Any]], unit: str, threshold: float | None) -> Record:
    """Agreement of a model with itself over all repetitions, the clean scans among them."""
    repeated = [condition for condition in conditions if condition["group"] == "again"]
    every = [panel.done[CLEAN], *(panel.done[condition["file"]] for condition in repeated)]
    rows = [
        {"name": one["name"], "what": one["what"], **agreement(*panel.pair(one["file"]), unit=unit, threshold=threshold)}
        for one in repeated
    ]
    if not repeated:
        return {"repetitions": []}
    record = {"repetitions": rows, "within_case_deviation": within_case_deviation(every, unit=unit).to_json()}
    return record | ({} if threshold is None else {"ever_turned": ever_turned(every, unit=unit, threshold=threshold).to_json()})


def site_record(evidence: Evidence) -> Record:
    """Every site by itself, and whether each was left out of the training of the network that scored it."""
    training = evidence.results.run.get("training")
    folds = training.get("folds") if isinstance(training, dict) else None
    left_out = evidence.results.run.get("split") == "cross-validation" and isinstance(folds, dict) and folds.get("by") == "site"
    of_site = {scan: scan.case.truth.site for scan in evidence.analysed if scan.case.truth is not None and scan.case.truth.site}
    groups = {site: [scan for scan, place in of_site.items() if place == site] for site in sorted(set(of_site.values()))}
    said = (
        "each site was scored by networks that had learned from the other sites alone"
        if left_out
        else "scans of a site may have been in training; folds by site (medssl finetune, folds.by: site) leave each one out"
    )
    return {"left_out": left_out, "note": said, "groups": [_site(site, scans, evidence) for site, scans in groups.items()]}


def _site(site: str, scans: Sequence[Measured], evidence: Evidence) -> Record:
    units = {"scan": scan_units(scans), "slice": slice_units(scans)}
    numbers: Record = {}
    for unit, one in units.items():
        clustered = len(np.unique(one.patients)) < len(one.labels)
        found = classification.rates(one, threshold=evidence.thresholds[unit], clustered=clustered)
        found |= {"auroc": classification.auroc(one, clustered=clustered)}
        numbers |= {f"{unit}_{name}": found[name].to_json() for name in ("auroc", "sensitivity", "specificity")}
    ill = [
        (scan, scan.overlap.dice) for scan in scans if scan.overlap is not None and scan.overlap.status in ("compared", "prediction_empty")
    ]
    ill = [] if evidence.masks_refused else ill
    dice = segmentation.summarise([value or 0.0 for _, value in ill], [scan.case.patient for scan, _ in ill])
    note = small(units["scan"], {name: numbers[f"scan_{name}"] for name in ("sensitivity", "specificity")})
    few = {"note": note} if note else {}
    patients = len({scan.case.patient for scan in scans})
    return {"site": site, "scans": len(scans), "patients": patients, "positive": units["scan"].n_positive, **numbers, "dice": dice, **few}


def draw_robustness(record: Record) -> list[Picture]:
    """A heat map of what damage costs, where scans were damaged."""
    panel = record["panel"]
    if panel is None or not panel["conditions"]:
        return []
    shown = [name for name in _SHOWN if any(name in condition["differences"] for condition in panel["conditions"])]
    if not shown:
        return []
    rows = list(dict.fromkeys(condition["name"] for condition in panel["conditions"]))
    grids = {name: _grid(panel["conditions"], rows, name) for name in shown}
    scale = max(_LEAST_SCALE, *(float(np.nanmax(np.abs(grid), initial=0)) for grid in grids.values()))
    figure = new_figure((5.2, (0.5 + 0.3 * len(rows)) * len(shown)))
    words = {condition["name"]: condition["what"] for condition in panel["conditions"]}
    for axes, name in zip(np.atleast_1d(figure.subplots(len(shown), 1)), shown, strict=True):
        _draw_grid(axes, grids[name], scale, title=NAMES[name], rows=[words[row] for row in rows])
    caption = (
        f"Damaged minus clean, {panel['scans']} scans of {panel['patients']} patients, by kind of damage (rows) and severity (columns). "
        "Below 0 is worse. The tables below hold every number with its interval."
    )
    return [Picture("robustness", "What damage costs", caption, to_png(figure))]


def _grid(conditions: Sequence[Record], rows: Sequence[str], name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(rows, 5) differences of one number, NaN where there is none."""
    grid = np.full((len(rows), _SEVERITIES), np.nan)
    for condition in conditions:
        found = condition["differences"].get(name)
        if found is not None:
            grid[rows.index(condition["name"]), condition["severity"] - 1] = found["value"]
    return grid


def _draw_grid(
    axes: "Axes", grid: np.ndarray[tuple[int, int], np.dtype[np.float64]], scale: float, *, title: str, rows: Sequence[str]
) -> None:
    """One heat map with its numbers in it, orange below 0 and purple above, which no kind of colour blindness mixes up."""
    axes.imshow(grid, cmap="PuOr", vmin=-scale, vmax=scale, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.7 * scale else "black"
            axes.text(column, row, f"{round(value, 2) + 0.0:+.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_title(title.partition(" at ")[0], fontsize=9)
    axes.set_xticks(range(_SEVERITIES), [str(severity + 1) for severity in range(_SEVERITIES)], fontsize=8)
    axes.set_yticks(range(len(grid)), rows, fontsize=8)
    axes.tick_params(length=0)
