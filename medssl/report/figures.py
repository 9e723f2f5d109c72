"""Curves and tables as pictures; colours of Okabe and Ito, each line with its own dash, so that no meaning hangs on colour alone."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.evaluation import classification
from medssl.report.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
STYLES = {"patient": (BLUE, "-"), "scan": (ORANGE, "--"), "slice": (GREEN, ":")}
_DPI = 110


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Args:
        name: File name without ending.
        title: Heading.
        caption: What it shows, in words that stand for it where it cannot be seen.
        png: The file's bytes.
    """

    name: str
    title: str
    caption: str
    png: bytes


def draw_figures(metrics: Mapping[str, Any], evidence: Evidence) -> list[Picture]:
    """Every figure that the evidence allows."""
    shown = curve_units(evidence)
    pictures = [draw_scores(evidence)] if any(scan.case.has_score for scan in evidence.scans) else []
    if shown:
        pictures += [draw_roc(evidence, shown), draw_precision_recall(evidence, shown)]
    if any("counts" in metrics[unit] and metrics[unit]["n"] for unit in STYLES):
        pictures.append(draw_confusion(metrics))
    if metrics["calibration"]["bins"] and not evidence.units["scan"].missing:
        pictures.append(draw_reliability(metrics["calibration"]))
    if metrics["froc"]["fp_per_scan"]:
        pictures.append(draw_froc(metrics["froc"], detects=evidence.results.run.get("task") == "detection"))
    if metrics["segmentation"]["summary"]["dice"]["n"]:
        pictures.append(draw_dice(metrics["segmentation"]))
    return pictures


def curve_units(evidence: Evidence) -> list[str]:
    """Units with both classes; scans only where they are not the patients all over again."""
    units = evidence.units
    same = len(units["scan"].labels) == len(units["patient"].labels)
    return [name for name in STYLES if not units[name].missing and not (name == "scan" and same)]


def picture(name: str, title: str, caption: str, draw: Callable[["Axes"], None], *, size: tuple[float, float] = (5.2, 4.2)) -> Picture:
    """A figure of one pair of axes, drawn without any window system."""
    figure = new_figure(size)
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    return Picture(name, title, caption, to_png(figure))


def new_figure(size: tuple[float, float], *, fitted: bool = True) -> "Figure":
    """An empty figure of a size in inches; `fitted` moves its axes so that all texts have room, which takes a while."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained" if fitted else None)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: "Figure") -> bytes:
    """The bytes of a PNG file, without the name of the software in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def draw_scores(evidence: Evidence) -> Picture:
    """Histogram of scan scores by class, with the locked threshold."""
    kinds = {1: ("lesion", ORANGE, "//"), 0: ("no lesion", BLUE, ""), None: ("answer unknown", GREY, "..")}
    groups = {
        name: [scan.case.finding.score for scan in evidence.scans if scan.case.has_score and scan.label == label]
        for label, (name, _, _) in kinds.items()
    }
    present = [style for style in kinds.values() if groups[style[0]]]

    def draw(axes: "Axes") -> None:
        edges, below = np.linspace(0, 1, 21), np.zeros(20)
        for name, colour, hatch in present:
            heights = np.histogram(np.array(groups[name], dtype=float), bins=edges)[0]
            label = f"{name} ({len(groups[name])})"
            axes.bar(edges[:-1], heights, 0.05, bottom=below, align="edge", color=colour, hatch=hatch, edgecolor="white", label=label)
            below += heights
        threshold = evidence.thresholds["scan"]
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
        axes.set(xlabel="score of the scan", ylabel="scans", xlim=(0, 1))
        axes.legend(frameon=False)

    counts = ", ".join(f"{len(groups[name])} {name}" for name, _, _ in present)
    return picture("scores", "Scores of the scans", f"Scans by score: {counts}. The line is the locked threshold.", draw)


def draw_roc(evidence: Evidence, shown: list[str]) -> Picture:
    """ROC curves; the ring is the locked threshold."""

    def draw(axes: "Axes") -> None:
        for name in shown:
            units, (colour, dash) = evidence.units[name], STYLES[name]
            curve = classification.roc_curve(units.labels, units.scores)
            axes.plot(_floats(curve["fpr"]), _floats(curve["tpr"]), color=colour, linestyle=dash, label=f"{name}s ({len(units.labels)})")
            threshold = evidence.thresholds[name]
            if threshold is not None:
                called, truth = units.scores >= threshold, units.labels.astype(bool)
                axes.plot(called[~truth].mean(), called[truth].mean(), "o", color=colour, markerfacecolor="none", markersize=9)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.legend(frameon=False, loc="lower right")

    return picture("roc", "ROC", "Sensitivity against 1 - specificity; the ring is the locked threshold, the grey line is chance.", draw)


def draw_precision_recall(evidence: Evidence, shown: list[str]) -> Picture:
    """Precision-recall curves in steps, with what chance gives."""

    def draw(axes: "Axes") -> None:
        for name in shown:
            units, (colour, dash) = evidence.units[name], STYLES[name]
            curve = classification.pr_curve(units.labels, units.scores)
            # From the right to the left, because precision holds for the recall gained by the step.
            axes.step([0, *curve["recall"]], [curve["precision"][0], *curve["precision"]], where="pre", color=colour, linestyle=dash)
            axes.plot([], [], color=colour, linestyle=dash, label=f"{name}s ({len(units.labels)})")
            axes.axhline(units.n_positive / len(units.labels), color=colour, linestyle=dash, linewidth=0.6)
        axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(frameon=False, loc="lower left")

    return picture("precision_recall", "Precision and recall", "The thin level line is the prevalence: what chance gives.", draw)


def draw_confusion(metrics: Mapping[str, Any]) -> Picture:
    """Confusion tables of the units side by side."""
    names = [unit for unit in STYLES if "counts" in metrics[unit] and metrics[unit]["n"]]
    figure = new_figure((2.9 * len(names), 2.7))
    for column, name in enumerate(names, start=1):
        counts = metrics[name]["counts"]
        table = np.array([[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]])
        axes = figure.add_subplot(1, len(names), column)
        axes.imshow(table / max(1, table.max()), cmap="Blues", vmin=0, vmax=1.6)
        for row, col in np.ndindex(2, 2):
            axes.text(col, row, str(table[row, col]), ha="center", va="center", fontsize=14)
        axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"])
        axes.set_yticks([0, 1], ["lesion", "no lesion"])
        axes.set_title(f"{name}s", fontsize=11)
    words = "; ".join(
        f"{name}s: " + ", ".join(f"{key.upper()} {value}" for key, value in metrics[name]["counts"].items()) for name in names
    )
    return Picture("confusion", "Confusion tables", f"At the locked thresholds. {words}.", to_png(figure))


def draw_reliability(record: Mapping[str, Any]) -> Picture:
    """Observed frequency against score, with Wilson intervals."""
    bins = [one for one in record["bins"] if one["n"]]

    def draw(axes: "Axes") -> None:
        x, y = (np.array([one[key] for one in bins]) for key in ("mean_score", "observed"))
        low, high = np.array([one["ci95"] for one in bins]).T
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7)
        axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o", color=BLUE, capsize=3)
        for one in bins:
            axes.annotate(str(one["n"]), (one["mean_score"], one["observed"]), textcoords="offset points", xytext=(6, 5), fontsize=8)
        axes.set(xlabel="mean score of the bin", ylabel="share with lesion", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")

    caption = f"Share of scans with lesion in each bin of score, with 95 % intervals; the numbers are scans ({record['n']} in all)."
    return picture("reliability", "Reliability of the score", caption, draw)


def draw_froc(record: Mapping[str, Any], *, detects: bool) -> Picture:
    """Lesion sensitivity against false positives per scan, in steps; `detects` says that marks are places, not parts of a mask."""

    def draw(axes: "Axes") -> None:
        last = max(8.0, record["fp_per_scan"][-1])
        axes.step([1e-3, *record["fp_per_scan"], last], [0, *record["sensitivity"], record["sensitivity"][-1]], where="post", color=BLUE)
        rates = [float(rate) for rate in record["sensitivity_at"]]
        axes.plot(rates, list(record["sensitivity_at"].values()), "o", color=ORANGE, markersize=5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(rates, list(record["sensitivity_at"]))
        axes.set(xlabel="false positives per scan", ylabel="lesion sensitivity", xlim=(0.1, last), ylim=(-0.02, 1.02))

    caption = (
        f"{record['n_lesions']} lesions in {record['n_scans']} scans; the dots are the rates that make up the CPM. Marks are the "
        f"{'places that the detector gives at its locked threshold' if detects else 'parts of the mask at the locked voxel threshold'}: "
        f"the curve ends with the last of them, at {record['ends_at']:.3g} false positives a scan, and is carried on level from there."
    )
    return picture("froc", "FROC", caption, draw)


def draw_dice(record: Mapping[str, Any]) -> Picture:
    """Dice of every scan, sorted."""
    values = sorted(one["dice"] for one in record["per_scan"] if one["dice"] is not None)

    def draw(axes: "Axes") -> None:
        axes.bar(range(len(values)), values, width=1.0 if len(values) > 60 else 0.8, color=BLUE)
        axes.axhline(float(np.median(values)), color=ORANGE, linestyle="--", label=f"median {np.median(values):.3f}")
        axes.set(xlabel="scans by Dice", ylabel="Dice", ylim=(0, 1), xticks=[])
        axes.legend(frameon=False, loc="upper left")

    left_out = f"{record['excluded_both_empty']} scans with two empty masks are left out."
    caption = f"Dice of {len(values)} scans; 0 where one of the masks is empty. {left_out}"
    return picture("dice", "Dice by scan", caption, draw)


def _floats(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
