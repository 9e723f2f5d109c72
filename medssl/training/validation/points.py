"""Scores on the validation scans, and the operating points locked from them."""

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from medssl.data.dataset import Case
from medssl.data.held_out import write_output
from medssl.data.store import decode
from medssl.evaluation.calibration import fit_temperature, tempered
from medssl.evaluation.classification import delong
from medssl.evaluation.operating_point import choose
from medssl.models.architecture import Network
from medssl.models.detection import Box, detections, slice_heights
from medssl.models.inference import Window, channel_probabilities, slice_scores
from medssl.training.validation.voxel_point import Parts, by_threshold, voxel_point

logger = logging.getLogger(__name__)

_EDGE = 1e-6  # a probability of 0 has no logarithm
_AS_THEY_ARE: Mapping[str, float] = MappingProxyType({})

Truth = tuple[NDArray[np.intp], NDArray[np.floating]]
"""Labels and scores of units."""


Metric = Literal["dice", "slice_auroc", "scan_auroc", "loss"]
Asked = Metric | Literal["points"]
"""What the output on scans is for: a metric, or the operating points."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """What is kept of a segmenter's map: what is asked for, where it is known, and no more.

    Args:
        dice: Of the mask at 0.5, of a scan with lesion.
        loss: Mean cross entropy.
        parts: Of the mask at each threshold, of a scan with lesion.
    """

    dice: float | None = None
    loss: float | None = None
    parts: tuple[Parts, ...] = ()

    @classmethod
    def of(cls, probability: NDArray[np.float32], case: Case, asked: Asked) -> "Voxels":
        """Of a map (I, J, K)."""
        if asked not in ("dice", "loss", "points") or not case.known:
            return cls()
        lesion = _lesion(case)
        if asked == "loss":
            return cls(loss=_cross_entropy(probability, lesion))
        if not lesion.any():
            return cls()
        return cls(dice=_dice(probability >= 0.5, lesion)) if asked == "dice" else cls(parts=by_threshold(probability, lesion))


@dataclass(frozen=True, eq=False)
class Scored:
    """One validation scan with what is kept of its output; no map, which can be a gigabyte.

    Args:
        case: The scan.
        voxels: Of a segmenter's map, None of other networks.
        slices: (K,) scores; one number for a classifier of volumes.
        channels: (channels, K) of a classifier, of which the slices are made; (1, K) scores of slices of other networks.
        found: Lesions of a detector, None of other networks.
    """

    case: Case
    voxels: Voxels | None
    slices: NDArray[np.float32]
    channels: NDArray[np.float32]
    found: tuple[Box, ...] | None = None

    @classmethod
    def of(cls, network: Network, case: Case, channels: NDArray[np.float32], asked: Asked) -> "Scored":
        """A scan with what a network, or one with the same channels, says of it: (channels, I, J, K), or (channels, K)."""
        output = network.outputs.suspicion(torch.from_numpy(channels))
        if network.task == "classification":
            return cls(case, None, output.numpy(), channels)
        slices = slice_scores(output).numpy()
        return cls(case, Voxels.of(output.numpy(), case, asked), slices, slices[None])


def score_cases(network: Network, cases: Sequence[Case], window: Window, asked: Asked, *, outputs: Path | None = None) -> list[Scored]:
    """Run a network over scans; there is one whole map at a time.

    Args:
        network: On the device where it runs.
        cases: The scans.
        window: How it looks at them.
        asked: What is kept of the output.
        outputs: Where the whole output is written as well; None writes none.
    """
    network.eval()
    return [_score(network, case, window, asked, outputs) for case in track(cases, "validating", transient=True)]


def _score(network: Network, case: Case, window: Window, asked: Asked, outputs: Path | None) -> Scored:
    device = next(network.parameters()).device
    image = torch.from_numpy(decode(case.image)).to(device)
    if network.task == "detection":
        found = detections(network, image, window)
        heights = slice_heights(found, case.shape[3])
        return Scored(case, None, heights, heights[None], tuple(found))
    channels = channel_probabilities(network, image, window).numpy()
    if outputs is not None:
        write_output(outputs, case.row.scan_id, channels)
    return Scored.of(network, case, channels, asked)


Points = dict[str, dict[str, object]]
"""Something of each unit, as JSON fields."""


def calibration(scored: Sequence[Scored]) -> Points:
    """The temperature of slices and of scans, fitted on validation scans; 1 where they are too few or too well told apart.

    Maps keep their values: most voxels are background that any network calls right, so a temperature of voxels would be fitted to that.
    """
    truths = {"slice": _slice_truth(scored), "scan": _scan_truth(scored)}
    found: Points = {unit: {"unit": unit, **asdict(fit_temperature(*truth))} for unit, truth in truths.items() if len(truth[0])}
    if _slices_serve(truths):
        found["scan"] = found["slice"]  # as the threshold of scans is then that of slices
    return found


def operating_points(
    scored: Sequence[Scored],
    *,
    rule: str = "youden midway",
    temperatures: Mapping[str, float] = _AS_THEY_ARE,
    chosen_on: str = "validation",
) -> Points:
    """Thresholds for scans, slices and voxels, from validation scans alone.

    Where every scan has a lesion and slices are of both classes, the threshold of slices serves for scans as well, and the rule says so.
    Where no scan has a lesion, that of scans is a quantile of their own scores: of so many slices in a scan the highest is high.

    Args:
        scored: The scans, asked for points.
        rule: See `medssl.evaluation.operating_point.choose`.
        temperatures: Of the scores of each unit; thresholds are on scores at that temperature.
        chosen_on: What these scans are.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    units = {"slice": _slice_truth(scored), "scan": _scan_truth(scored)}
    points: Points = {}
    for unit, (labels, scores) in units.items():
        if len(labels):
            calibrated = tempered(scores, temperatures.get(unit, 1.0))
            points[unit] = asdict(choose(labels, calibrated, unit=unit, rule=rule, chosen_on=chosen_on, locked_at=now))
    if _slices_serve(units):
        said = f"that of slices ({points['slice']['rule']}): no validation scan without lesion"
        points["scan"] = {**points["slice"], "unit": "scan", "rule": said}
    parts = [one.voxels.parts for one in scored if one.voxels is not None and one.voxels.parts]
    voxel = voxel_point(parts, chosen_on=chosen_on, whole=any(one.case.classes.names for one in scored))
    return points if voxel is None else {**points, "voxel": voxel}


def measure(scored: Sequence[Scored], metric: Metric) -> float | None:
    """How good the output is on validation scans; the higher the better, but for `loss`.

    Args:
        scored: The scans, asked for this metric.
        metric: `dice` of masks at 0.5, a mean over scans with lesion; `slice_auroc` and `scan_auroc`, over all of them together; `loss`,
            the mean cross entropy of voxels (a scan counts once), or of a classifier's slices or scans.

    Returns:
        The value, None where these scans cannot tell.
    """
    if metric == "dice":
        found = [one.voxels.dice for one in scored if one.voxels is not None and one.voxels.dice is not None]
        return float(np.mean(found)) if found else None
    if metric == "loss":
        return _loss(scored)
    labels, scores = _slice_truth(scored) if metric == "slice_auroc" else _scan_truth(scored)
    return delong(labels, scores)[0] if len(set(labels.tolist())) == 2 else None


def is_measurable(network: Network, cases: Sequence[Case], metric: Metric) -> bool:
    """Whether `measure` can tell a network's output on scans, asked before there is one, with the same scores everywhere."""
    return measure([_blank(network, case) for case in cases], metric) is not None


def _blank(network: Network, case: Case) -> Scored:
    """A scan with output of the kind that a network gives; no mask is read."""
    by_slice = network.task != "classification" or (network.spatial_dims == 2 and not network.bags)
    slices = np.full(case.shape[3] if by_slice else 1, 0.5, np.float32)
    voxels = Voxels(dice=0.5 if case.has_mask and len(case.lesion_slices) else None, loss=0.5 if case.known else None)
    return Scored(case, voxels if network.task == "segmentation" else None, slices, slices[None])


def _dice(called: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> float:
    return float(2 * (called & lesion).sum() / (called.sum() + lesion.sum()))


def _loss(scored: Sequence[Scored]) -> float | None:
    """Mean cross entropy of what the network says with what is known."""
    maps = [one.voxels.loss for one in scored if one.voxels is not None and one.voxels.loss is not None]
    if maps:
        return float(np.mean(maps))
    truths = [truth for truth in (_slice_truth(scored), _scan_truth(scored)) if len(truth[0])]
    return _cross_entropy(truths[0][1], truths[0][0] > 0) if truths else None


def _lesion(case: Case) -> NDArray[np.bool_]:
    lesion = case.lesion
    return np.zeros(case.shape[1:], np.bool_) if lesion is None else lesion[0] > 0


def _cross_entropy(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    right = np.where(truth, probability, 1 - probability)
    return float(-np.log(np.clip(right, _EDGE, 1)).mean())


def _slices_serve(units: Mapping[str, Truth]) -> bool:
    """Whether slices are of both classes and scans are not, so that slices alone can tell what separates the classes."""
    slices, scans = (set(units[unit][0].tolist()) for unit in ("slice", "scan"))
    return len(slices) == 2 and len(scans) < 2


def _slice_truth(scored: Sequence[Scored]) -> Truth:
    """Labels and scores of the slices of scans whose lesions are known slice by slice."""
    known = [one for one in scored if one.case.known and len(one.slices) == one.case.shape[3]]
    if not known:
        return np.zeros(0, np.intp), np.zeros(0)
    return np.concatenate([_lesion_slices(one.case) for one in known]), np.concatenate([one.slices for one in known])


def _lesion_slices(case: Case) -> NDArray[np.intp]:
    labels = np.zeros(case.shape[3], dtype=np.intp)
    labels[case.lesion_slices] = 1
    return labels


def _scan_truth(scored: Sequence[Scored]) -> Truth:
    """Labels and scores (highest slice) of the scans whose answer is known."""
    pairs = [(scan_answer(one.case), float(one.slices.max())) for one in scored]
    known = [(answer, score) for answer, score in pairs if answer >= 0]
    return np.array([answer for answer, _ in known], dtype=np.intp), np.array([score for _, score in known])


def scan_answer(case: Case) -> int:
    """1 for a scan with a positive lesion, 0 for one without, -1 where that is not known: what scores of scans are held against."""
    return case.label if case.label >= 0 or not case.has_mask else int(len(case.lesion_slices) > 0)
