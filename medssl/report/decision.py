"""The decision curve as a picture."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from medssl.report.figures import Picture


def draw_decision(record: Mapping[str, Any]) -> "list[Picture]":
    """Net benefit of the score against acting on everybody and on nobody; nothing where there is no curve."""
    from medssl.report.figures import BLUE, GREY, ORANGE, picture

    if not record["model"]:
        return []
    at, model, everybody = (np.asarray(record[name]) for name in ("thresholds", "model", "treat_all"))

    def draw(axes: "Axes") -> None:
        if record["ci95"]:
            low, high = np.asarray(record["ci95"]).T
            axes.fill_between(at, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(at, model, color=BLUE, label="by the score")
        axes.plot(at, everybody, color=ORANGE, linestyle="--", label="everybody")
        axes.axhline(0, color=GREY, linestyle=":", label="nobody")
        top = max(float(model.max()), float(everybody.max()), 0.01)
        axes.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1), ylim=(-0.5 * top, 1.1 * top))
        axes.legend(frameon=False)

    caption = f"Net benefit of acting on {record['n']} scans by their score: {record['definition']}. It takes the score for a probability."
    if record["note"]:
        caption += f" {record['note'][0].upper()}{record['note'][1:]}."
    return [picture("decision_curve", "Decision curve", caption, draw)]
