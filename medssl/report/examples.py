"""Scans to look at: every miss (of more than 200 the lowest), the worst false alarms, best and middling outlines; radiological display."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.report.cases import Array, ScanMaps, read_maps
from medssl.report.evidence import Evidence, Measured
from medssl.report.failures import reason
from medssl.report.figures import Picture, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSES, ALARMS, OUTLINES, HIGHEST = 200, 10, 2, 6
TRUTH, PREDICTION = "#56B4E9", "#E69F00"  # sky blue and orange of Okabe and Ito, both clear on grey


@dataclass(frozen=True, eq=False)
class Example:
    """A scan to show, and why.

    Args:
        kind: `false_negative`, `false_positive`, `best_dice`, `median_dice` or `highest_score`.
        title: The same in words.
        scan: The scan.
    """

    kind: str
    title: str
    scan: Measured


def choose_examples(evidence: Evidence) -> list[Example]:
    """Misses by lowest score, false alarms by highest, outlines by Dice; without the truth the highest scores."""
    threshold = evidence.thresholds["scan"]
    if not evidence.analysed or threshold is None:
        shown = [replace(scan, overlap=None) if evidence.masks_refused else scan for scan in _by_score(evidence.scans)[:HIGHEST]]
        return [Example("highest_score", "High score", scan) for scan in shown]
    ranked = _by_score(evidence.analysed)
    misses = [scan for scan in reversed(ranked) if scan.label == 1 and _score(scan) < threshold][:MISSES]
    alarms = [scan for scan in ranked if scan.label == 0 and _score(scan) >= threshold][:ALARMS]
    return [
        *(Example("false_negative", "Missed: false negative", scan) for scan in misses),
        *(Example("false_positive", "False alarm: false positive", scan) for scan in alarms),
        *_outlines(evidence),
    ]


def draw_examples(evidence: Evidence) -> list[Picture]:
    """A picture of each example whose image can be read; one scan is in memory at a time."""
    pictures = []
    for number, example in enumerate(choose_examples(evidence), start=1):
        pictures += _draw(evidence.results.folder, example, number)
    return pictures


def _by_score(scans: Sequence[Measured]) -> list[Measured]:
    return sorted((scan for scan in scans if scan.case.has_score), key=lambda scan: -_score(scan))


def _score(scan: Measured) -> float:
    return scan.case.finding.score or 0.0


def _outlines(evidence: Evidence) -> Iterator[Example]:
    if evidence.masks_refused:
        return
    rated = sorted(
        ((overlap.dice, scan) for scan, overlap in evidence.overlaps if overlap.status == "compared"), key=lambda pair: pair[0] or 0
    )
    best = [scan for _, scan in rated[::-1][:OUTLINES]]
    middle = max(0, (len(rated) - OUTLINES) // 2)
    yield from (Example("best_dice", "Best outline", scan) for scan in best)
    yield from (
        Example("median_dice", "Outline about the median", scan) for _, scan in rated[middle : middle + OUTLINES] if scan not in best
    )


def _draw(folder: Path, example: Example, number: int) -> list[Picture]:
    try:
        maps = read_maps(folder, example.scan.case, image=True)
    except ScanError:
        return []
    if maps.image is None:
        return []
    index = _slice_index(example, maps)
    figure = new_figure((6.4, 3.2), fitted=False)
    plain, marked = (figure.add_axes((left, 0.0, 0.495, 1.0)) for left in (0.0, 0.505))
    for axes in (plain, marked):
        _show(axes, maps, index, nominal=example.scan.case.finding.nominal)
    _outline(marked, maps.lesion, index, colour=TRUTH, dash="solid")
    _outline(marked, maps.mask, index, colour=PREDICTION, dash="dashed")
    name = f"example_{number:02d}_{example.kind}"
    return [Picture(name, f"{example.title}: {example.scan.case.scan_id}", _caption(example, maps, index), to_png(figure))]


def _slice_index(example: Example, maps: ScanMaps) -> int:
    """The slice along K that shows the reason best."""
    masks = [maps.lesion] if example.kind == "false_negative" else [maps.mask, maps.lesion]
    area = sum(((mask > 0).sum(axis=(0, 1)) for mask in masks if mask is not None), start=np.zeros(_depth(maps)))
    scores = example.scan.case.finding.slice_scores
    if area.any():
        return int(area.argmax())
    return int(np.argmax(scores)) if len(scores) == _depth(maps) else _depth(maps) // 2


def _depth(maps: ScanMaps) -> int:
    return int(maps.image.shape[2]) if maps.image is not None else 1


def oriented(array: Array, index: int) -> Array:
    """Slice `index` along K as (rows, columns): anterior on top, the patient's right on the left, as the review app shows it."""
    return np.asarray(array[:, :, index].T[::-1, ::-1])


def _show(axes: "Axes", maps: ScanMaps, index: int, *, nominal: bool) -> None:
    if maps.image is None:
        return
    low, high = np.percentile(np.nan_to_num(maps.image), (1, 99.5))
    picture = np.nan_to_num(oriented(maps.image, index))
    aspect = maps.spacing_mm[1] / maps.spacing_mm[0]
    axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="nearest")
    axes.set_axis_off()
    if not nominal:
        axes.text(0.02, 0.5, "R", transform=axes.transAxes, color="white", fontsize=9, va="center")


def _outline(axes: "Axes", mask: Array | None, index: int, *, colour: str, dash: str) -> None:
    if mask is None:
        return
    shown: NDArray[np.bool_] = oriented(mask, index) > 0
    if not shown.any():
        return
    # A border of background closes the line around a mask that touches the edge.
    rows, columns = shown.shape
    axes.contour(
        np.arange(-1, columns + 1),
        np.arange(-1, rows + 1),
        np.pad(shown, 1),
        levels=[0.5],
        colors=[colour],
        linestyles=[dash],
        linewidths=1.8,
    )
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def _caption(example: Example, maps: ScanMaps, index: int) -> str:
    scan, finding = example.scan, example.scan.case.finding
    told = [f"score {_score(scan):.3f}", f"slice {index + 1} of {_depth(maps)}"]
    if scan.overlap is not None and scan.overlap.dice is not None:
        told.append(f"Dice {scan.overlap.dice:.3f}")
    if scan.overlap is not None:
        unit = "nominal ml" if finding.nominal else "ml"
        told.append(f"true volume {scan.overlap.true_ml:.3g} {unit}, predicted {scan.overlap.predicted_ml:.3g} {unit}")
    if finding.warnings:
        told.append("intake warnings: " + ", ".join(finding.warnings))
    if example.kind in ("false_negative", "false_positive"):
        told.append(reason(scan))
    lines = [text for text, mask in (("blue line: truth", maps.lesion), ("orange dashes: prediction", maps.mask)) if mask is not None]
    return "; ".join(told) + (f". Right picture: {', '.join(lines)}." if lines else ".")
