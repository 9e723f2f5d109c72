"""One HTML file that needs nothing else: no script, no network, every text escaped, pictures inside."""

import base64
import functools
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.evaluation.classification import NAMES
from medssl.report.figures import Picture
from medssl.report.study import STATEMENTS

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

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
    "slice_mm": "distance of slices (mm)",
    "lesion_ml": "lesion volume of a scan (ml)",
    "age": "age (years)",
    "field": "field strength or tube voltage",
}
_NOMINAL = {"hd95_mm": "HD95 (voxels)", "volume_error_ml": "volume error (nominal ml)", "lesion_ml": "lesion volume of a scan (nominal ml)"}


def render(metrics: Mapping[str, Any], *, pictures: Sequence[Picture], examples: Sequence[Picture]) -> str:
    """The report as HTML.

    Args:
        metrics: The record of `metrics.json`; the document shows no other number.
        pictures: Curves and tables.
        examples: Scans to look at.
    """
    template = _environment().get_template("template.html")
    said = {"metric_names": NAMES, "besides": BESIDES, "statements": STATEMENTS}
    return template.render(m=metrics, pictures=pictures, examples=examples, **said)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=clean, trim_blocks=True)
    filters = {"number": number, "interval": interval, "signed": signed, "words": words, "inline": inline, "short": short, "plain": plain}
    environment.filters |= filters
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


def short(value: object) -> str:
    """Three figures, or a dash where there is no number."""
    return f"{value:.3g}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def plain(value: object) -> str:
    """A setting as one line of text."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def words(name: str, nominal: bool = False) -> str:
    """A key as it is said; with `nominal` in voxels."""
    known = _WORDS | (_NOMINAL if nominal else {})
    return known.get(name, name.replace("_", " "))


def inline(picture: Picture) -> "Markup":
    """A picture as a data address, marked as safe: the letters of base64 need no escape."""
    from markupsafe import Markup

    return Markup("data:image/png;base64," + base64.b64encode(picture.png).decode())
