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

from medssl.data.classes import UNKNOWN
from medssl.data.dataset import Case
from medssl.data.held_out import write_output
from medssl.data.store import decode
from medssl.evaluation.calibration import fit_class_temperature, fit_temperature, tempered, tempered_classes
from medssl.evaluation.classification import delong
from medssl.evaluation.multiclass import mean_area
from medssl.evaluation.operating_point import choose
from medssl.models.architecture import Network
from medssl.models.detection import Box, detections, slice_heights
from medssl.models.inference import Window, channel_probabilities, slice_scores
from medssl.models.outputs import Outputs
from medssl.training.validation.answers import class_overlaps, classes_in, label_loss, targets, voxel_loss
from medssl.training.validation.voxel_point import Parts, by_threshold, voxel_point

logger = logging.getLogger(__name__)

_AS_THEY_ARE: Mapping[str, float] = MappingProxyType({})

Truth = tuple[NDArray[np.intp], NDArray[np.floating]]
"""Labels and scores of units."""


Metric = Literal["dice", "class_dice", "slice_auroc", "scan_auroc", "macro_auroc", "loss"]
Asked = Metric | Literal["points"]
"""What the output on scans is for: a metric, or the operating points."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """What is kept of a segmenter's map: what is asked for, where it is known, and no more.

    Args:
        dice: Of the mask at 0.5, of a scan with lesion.
        loss: Mean cross entropy.
        classes: Dice of each named class, None for one neither called nor there.
        parts: Of the mask at each threshold, of a scan with lesion.
    """

    dice: float | None = None
    loss: float | None = None
    classes: tuple[float | None, ...] = ()
    parts: tuple[Parts, ...] = ()

    @classmethod
    def of(cls, channels: NDArray[np.float32], case: Case, outputs: Outputs, asked: Asked) -> "Voxels":
        """Of a map (channels, I, J, K)."""
        if asked not in ("dice", "class_dice", "loss", "points") or not case.known:
            return cls()
        if asked == "loss":
            return cls(loss=voxel_loss(case, channels, outputs))
        if asked == "class_dice":
            return cls(classes=class_overlaps(case, channels, outputs) if outputs.names else ())
        lesion, probability = _lesion(case), outputs.suspicion(torch.from_numpy(channels)).numpy()
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
        outputs: What the channels mean.
    """

    case: Case
    voxels: Voxels | None
    slices: NDArray[np.float32]
    channels: NDArray[np.float32]
    found: tuple[Box, ...] | None = None
    outputs: Outputs = Outputs()

    def at(self, temperature: float) -> NDArray[np.floating]:
        """(N,) `slices` at a temperature, of the logits of classes where one holds; at 1 they are what they were."""
        if temperature == 1 or not self.chooses:
            return tempered(self.slices, temperature)
        return self.outputs.suspicion(torch.from_numpy(tempered_classes(self.channels, temperature))).numpy()

    def scan_at(self, temperature: float) -> float:
        """The score of the scan, that of the highest slice, at a temperature."""
        return float(self.at(temperature)[self.slices.argmax()])

    @property
    def chooses(self) -> bool:
        """Whether this is of a classifier of classes of which one holds."""
        return self.voxels is None and self.outputs.softmax

    @classmethod
    def of(cls, network: Network, case: Case, channels: NDArray[np.float32], asked: Asked) -> "Scored":
        """A scan with what a network, or one with the same channels, says of it: (channels, I, J, K), or (channels, K)."""
        output = network.outputs.suspicion(torch.from_numpy(channels))
        if network.task == "classification":
            return cls(case, None, output.numpy(), channels, outputs=network.outputs)
        slices = slice_scores(output).numpy()
        return cls(case, Voxels.of(channels, case, network.outputs, asked), slices, slices[None], outputs=network.outputs)


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

    It is fitted on what it divides: the logits of classes of which one holds, else that of the score, and then serves each class alike.
    Maps keep their values: most voxels are background that any network calls right, so a temperature of voxels would be fitted to that.
    """
    truths = {"slice": _slice_truth(scored), "scan": _scan_truth(scored)}
    found: Points = {unit: {"unit": unit, **_fitted(scored, unit, truth)} for unit, truth in truths.items() if len(truth[0])}
    if _slices_serve(truths):
        found["scan"] = found["slice"]  # as the threshold of scans is then that of slices
    return found


def _fitted(scored: Sequence[Scored], unit: str, truth: Truth) -> dict[str, object]:
    """The fields of a temperature."""
    outputs = scored[0].outputs
    if not scored[0].chooses:
        return ({"of": "each class"} if outputs.names else {}) | asdict(fit_temperature(*truth))
    classes, said = _class_truth(scored, unit)
    return {"of": "classes", **asdict(fit_class_temperature(classes, said, positive=outputs.positives))}


def _class_truth(scored: Sequence[Scored], unit: str) -> Truth:
    """Indices of the classes (N,) of slices or scans where they are known, and the probabilities (C, N) of all classes."""
    if unit == "slice":
        told = [one for one in scored if len(one.slices) == one.case.shape[3] and (one.case.known or one.case.shape[3] == 1)]
        classes = [target[0] for one in told for target in targets(one.case, len(one.slices))]
        said = [one.channels for one in told]
    else:
        classes = [one.case.target[0] for one in scored]
        said = [one.outputs.of_scan(torch.from_numpy(one.channels))[:, None].numpy() for one in scored]
    kept = np.array(classes) >= 0
    return np.array(classes)[kept], np.concatenate(said, axis=1)[:, kept]


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
    units = {
        "slice": _slice_truth(scored, temperatures.get("slice", 1.0)),
        "scan": _scan_truth(scored, temperatures.get("scan", 1.0)),
    }
    points: Points = {}
    for unit, (labels, scores) in units.items():
        if len(labels):
            points[unit] = asdict(choose(labels, scores, unit=unit, rule=rule, chosen_on=chosen_on, locked_at=now))
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
            the mean cross entropy of voxels, or of a classifier's slices or scans with the answers that it learns: a scan counts once.
            Where classes are named: `class_dice` and `macro_auroc`, means over classes of the Dice of each and of its area of scans against
            the rest.

    Returns:
        The value, None where these scans cannot tell.
    """
    if metric == "dice":
        found = [one.voxels.dice for one in scored if one.voxels is not None and one.voxels.dice is not None]
        return float(np.mean(found)) if found else None
    if metric == "class_dice":
        return _class_dice(scored)
    if metric == "macro_auroc":
        return _macro_auroc(scored)
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
    if network.task != "segmentation":
        return Scored(case, None, slices, np.full((network.outputs.channels, len(slices)), 0.5, np.float32), outputs=network.outputs)
    known = case.has_mask and len(case.lesion_slices)
    voxels = Voxels(0.5 if known else None, 0.5 if case.known else None, (0.5,) * len(network.outputs.names) if case.known else ())
    return Scored(case, voxels, slices, slices[None], outputs=network.outputs)


def _dice(called: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> float:
    return float(2 * (called & lesion).sum() / (called.sum() + lesion.sum()))


def _class_dice(scored: Sequence[Scored]) -> float | None:
    """The mean, over the named classes that masks hold, of their Dice over scans in which they are or are called."""
    outlined = [(one.case, one.voxels.classes) for one in scored if one.voxels is not None and one.voxels.classes]
    held = sorted({number for case, _ in outlined for number in classes_in(case)})
    found = [[value for _, classes in outlined if (value := classes[number - 1]) is not None] for number in held]
    return float(np.mean([np.mean(values) for values in found])) if found else None


def _macro_auroc(scored: Sequence[Scored]) -> float | None:
    """The mean over named classes of the area of scans of each against the rest, of a classifier."""
    told = [one for one in scored if one.voxels is None and one.outputs.names and UNKNOWN not in one.case.target]
    if not told:
        return None
    said = torch.stack([one.outputs.of_scan(torch.from_numpy(one.channels)) for one in told]).numpy()
    answers = np.array([one.case.target for one in told])
    return mean_area(np.eye(said.shape[1], dtype=np.intp)[answers[:, 0]] if told[0].outputs.softmax else answers, said)


def _loss(scored: Sequence[Scored]) -> float | None:
    """The mean over scans of the cross entropy of what the network says with what it learns."""
    found = [label_loss(one.case, one.channels, one.outputs) if one.voxels is None else one.voxels.loss for one in scored]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _lesion(case: Case) -> NDArray[np.bool_]:
    lesion = case.lesion
    return np.zeros(case.shape[1:], np.bool_) if lesion is None else lesion[0] > 0


def _slices_serve(units: Mapping[str, Truth]) -> bool:
    """Whether slices are of both classes and scans are not, so that slices alone can tell what separates the classes."""
    slices, scans = (set(units[unit][0].tolist()) for unit in ("slice", "scan"))
    return len(slices) == 2 and len(scans) < 2


def _slice_truth(scored: Sequence[Scored], temperature: float = 1.0) -> Truth:
    """Labels and scores of the slices of scans whose lesions are known slice by slice; that of a scan of one slice has its answer."""
    pairs = [(_slice_answers(one.case), one.at(temperature)) for one in scored if len(one.slices) == one.case.shape[3]]
    known = [(answers, slices) for answers, slices in pairs if len(answers)]
    if not known:
        return np.zeros(0, np.intp), np.zeros(0)
    return np.concatenate([answers for answers, _ in known]), np.concatenate([slices for _, slices in known])


def _slice_answers(case: Case) -> NDArray[np.intp]:
    """(K,) 1 for the slices with a positive lesion, 0 for those without; empty where that is not known."""
    if case.shape[3] == 1:
        return np.array([answer for answer in [scan_answer(case)] if answer >= 0], dtype=np.intp)
    labels = np.zeros(case.shape[3] if case.known else 0, dtype=np.intp)
    labels[case.lesion_slices] = 1
    return labels


def _scan_truth(scored: Sequence[Scored], temperature: float = 1.0) -> Truth:
    """Labels and scores (highest slice) of the scans whose answer is known."""
    pairs = [(scan_answer(one.case), one.scan_at(temperature)) for one in scored]
    known = [(answer, score) for answer, score in pairs if answer >= 0]
    return np.array([answer for answer, _ in known], dtype=np.intp), np.array([score for _, score in known])


def scan_answer(case: Case) -> int:
    """1 for a scan with a positive lesion, 0 for one without, -1 where that is not known: what scores of scans are held against."""
    return case.label if case.label >= 0 or not case.has_mask else int(len(case.lesion_slices) > 0)
