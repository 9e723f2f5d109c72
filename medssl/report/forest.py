"""The forest plot: rates of every subgroup with their intervals, beside those of all scans."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.evaluation.few import FEW_IN_GROUP
from medssl.report.figures import BLUE, GREY, ORANGE, Picture, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATES = {"sensitivity": (BLUE, "o"), "specificity": (ORANGE, "s")}
_MOST_ROWS = 40
_LONGEST_NAME = 22

Row = tuple[str, Mapping[str, Any]]


def draw_forest(metrics: Mapping[str, Any]) -> list[Picture]:
    """One picture, or none where no group has a rate."""
    rows = _rows(metrics)
    if len(rows) < 2:
        return []
    shown = [rate for rate in _RATES if any(group[rate]["value"] is not None for _, group in rows)]
    figure = new_figure((5.6, len(shown) * (0.8 + 0.24 * len(rows))))
    for place, rate in enumerate(shown, start=1):
        axes = figure.add_subplot(len(shown), 1, place)
        _panel(axes, rows, rate)
        axes.axhline(0.5, color=GREY, linewidth=0.6)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    caption = (
        f"Rates of {len(rows) - 1} subgroups of scans with their 95 % intervals; the numbers are k/n, the thin line is the rate of all "
        f"scans. Hollow: a rate of fewer than {FEW_IN_GROUP} scans, no conclusion. No line: too few patients for an interval."
    )
    return [Picture("forest", "Subgroups", caption, to_png(figure))]


def _rows(metrics: Mapping[str, Any]) -> list[Row]:
    """All scans first, then each group that has a rate."""
    groups = [
        (f"{kind}: {_short(group['group'])} ({group['n']})", group)
        for kind, parts in metrics["subgroups"].items()
        for group in parts
        if any(group[rate]["value"] is not None for rate in _RATES) and (len(parts) > 1 or kind == "site")
    ]
    return [(f"all scans ({metrics['scan']['n']})", metrics["scan"]), *groups[:_MOST_ROWS]]


def _panel(axes: "Axes", rows: list[Row], rate: str) -> None:
    colour, marker = _RATES[rate]
    for height, (_, group) in enumerate(rows):
        metric = group[rate]
        if metric["value"] is None:
            axes.text(0.5, height, "–", ha="center", va="center", color=GREY)
            continue
        low, high = metric["ci95"]
        if low is not None:
            axes.plot([low, high], [height, height], color=colour, linewidth=1.4)
        axes.plot(metric["value"], height, marker, color=colour, markersize=6, markerfacecolor="white" if is_small(metric) else colour)
        axes.text(1.04, height, f"{metric['k']}/{metric['n']}", fontsize=8.5, va="center", color="black")
    if rows[0][1][rate]["value"] is not None:
        axes.axvline(rows[0][1][rate]["value"], color=GREY, linewidth=0.7)
    axes.set(xlim=(-0.02, 1.2), xlabel=rate, xticks=np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)


def is_small(metric: Mapping[str, Any]) -> bool:
    """Whether a rate rests on so few scans that it is drawn hollow."""
    return int(metric["n"]) < FEW_IN_GROUP


def _short(name: str) -> str:
    """A name that fits, without characters that matplotlib takes as formulas or that no font has."""
    plain = "".join(character if character.isprintable() and character.isascii() else "?" for character in name).replace("$", r"\$")
    return plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "..."
