"""One HTML file that needs nothing else: no script, no network, every text escaped, pictures inside."""

import base64
import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.evaluation.classification import NAMES
from medssl.report.figures import Picture

if TYPE_CHECKING:
    from jinja2 import Environment

BESIDES = {"clopper_pearson95": "Clopper-Pearson", "wilson95": "Wilson", "patients95": "drawn by patient"}
_WORDS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "ece": "ECE",
    "mce": "worst bin (MCE)",
    "brier": "Brier",
    "lr_positive": "LR+",
    "lr_negative": "LR-",
    "hd95_mm": "HD95 (mm)",
    "volume_error_ml": "volume error (ml)",
    "dice": "Dice, all scans",
    "dice_with_lesion": "Dice, scans with lesion",
}
_NOMINAL = {"hd95_mm": "HD95 (voxels)", "volume_error_ml": "volume error (nominal ml)"}


def render(
    metrics: Mapping[str, Any], *, pictures: Sequence[Picture], examples: Sequence[Picture], missed: Sequence[Mapping[str, Any]]
) -> str:
    """The report as HTML.

    Args:
        metrics: The record of `metrics.json`; the document shows no other number.
        pictures: Curves and tables.
        examples: Scans to look at.
        missed: Every false negative: `scan_id`, `score`, `warnings`.
    """
    template = _environment().get_template("template.html")
    return template.render(m=metrics, pictures=pictures, examples=examples, missed=missed, metric_names=NAMES, besides=BESIDES)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=clean, trim_blocks=True)
    environment.filters |= {"number": number, "interval": interval, "signed": signed, "words": words, "inline": inline}
    return environment


def clean(value: object) -> object:
    """A text without control and direction characters, which could hide or turn what a reader sees; None as nothing."""
    if value is None:
        return ""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(" " if character in "\r\n\t" else character for character in value if _visible(character))


def _visible(character: str) -> bool:
    return character in "\r\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def number(value: object) -> str:
    """Three decimals, or a dash where there is no number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def signed(value: float) -> str:
    """Three decimals with their sign; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def interval(pair: object) -> str:
    """Both ends, or a dash."""
    if not isinstance(pair, list | tuple) or None in pair:
        return "–"
    low, high = pair
    return f"{number(low)} to {number(high)}"


def words(name: str, nominal: bool = False) -> str:
    """A key as it is said; with `nominal` in voxels."""
    known = _WORDS | (_NOMINAL if nominal else {})
    return known.get(name, name.replace("_", " "))


def inline(picture: Picture) -> str:
    """A picture as a data address."""
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()
