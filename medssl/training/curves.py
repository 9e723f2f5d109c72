"""Curves of a run as small multiples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

_PANELS = {
    "effective rank": ("effective_rank",),
    "deviation of a dimension": ("std_mean", "std_min"),
    "alignment": ("alignment",),
    "uniformity": ("uniformity",),
    "neighbours and probe, AUROC": ("knn_auroc", "probe_auroc"),
    "crops a second": ("crops_per_second",),
}
_COLOURS = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", ":"))  # Okabe and Ito; dashes carry the meaning too


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Small multiples of the looks of `health.jsonl` as a PNG: loss terms first, then what is known of the features."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    terms = sorted({name for row in rows for name in row if name.startswith("train/")})
    panels = {name.removeprefix("train/"): (name,) for name in terms} | _PANELS
    shown = {title: names for title, names in panels.items() if any(name in row for row in rows for name in names)}
    figure = Figure(figsize=(9, 2.2 * -(-len(shown) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, names) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(-(-len(shown) // 3), 3, place)
        for name, (colour, dash) in zip(names, _COLOURS, strict=False):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, marker=".", markersize=3, label=name)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        if len(names) > 1:
            axes.legend(fontsize=6)
    figure.supxlabel("step", fontsize=9)
    figure.savefig(path, dpi=110)
