"""Scores on the validation scans, and the operating points locked from them."""

import datetime
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.ndimage import label

from medssl.data.dataset import Case
from medssl.data.store import decode
from medssl.evaluation.operating_point import choose
from medssl.models.architecture import Network
from medssl.models.detection import Box, detections, slice_heights
from medssl.models.inference import Window, probabilities, slice_scores

logger = logging.getLogger(__name__)

_THRESHOLDS = np.round(np.arange(0.2, 0.85, 0.05), 2)
_LEAST_VOXELS = (1, 5, 10, 20, 40, 80)
_CONNECTED_26 = np.ones((3, 3, 3))


@dataclass(frozen=True, eq=False)
class Scored:
    """One validation scan with its output.

    Args:
        case: The scan.
        probability: (I, J, K) of a segmenter, None of a classifier.
        slices: (K,) scores; one number for a classifier of volumes.
        found: Lesions of a detector, None of other networks.
    """

    case: Case
    probability: NDArray[np.float32] | None
    slices: NDArray[np.float32]
    found: tuple[Box, ...] | None = None


def score_cases(network: Network, cases: Sequence[Case], window: Window) -> list[Scored]:
    """Run a network over scans."""
    device = next(network.parameters()).device
    network.eval()
    return [_score(network, case, window, device) for case in track(cases, "validating", transient=True)]


def _score(network: Network, case: Case, window: Window, device: torch.device) -> Scored:
    if network.task == "detection":
        found = detections(network, torch.from_numpy(decode(case.image)).to(device), window)
        return Scored(case, None, slice_heights(found, case.shape[3]), tuple(found))
    output = probabilities(network, torch.from_numpy(decode(case.image)).to(device), window)
    if network.task == "classification":
        return Scored(case, None, output.numpy())
    return Scored(case, output.numpy(), slice_scores(output).numpy())


def operating_points(scored: Sequence[Scored], *, rule: str = "youden midway") -> dict[str, dict[str, object]]:
    """Thresholds for scans, slices and voxels, from validation scans alone.

    Where no scan (or every scan) has a lesion, the threshold of slices serves for scans as well, and the rule says so.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    points: dict[str, dict[str, object]] = {}
    slices = _slice_truth(scored)
    if slices:
        labels, scores = (np.concatenate(part) for part in zip(*slices, strict=True))
        points["slice"] = asdict(choose(labels, scores, unit="slice", rule=rule, chosen_on="validation", locked_at=now))
    labels, scores = _scan_truth(scored)
    if len(set(labels)) < 2 and "slice" in points:
        missing = "without" if labels.all() else "with"
        points["scan"] = {**points["slice"], "unit": "scan", "rule": f"that of slices: no validation scan {missing} lesion"}
    elif len(labels):
        points["scan"] = asdict(choose(labels, scores, unit="scan", rule=rule, chosen_on="validation", locked_at=now))
    voxel = _voxel_point(scored, now)
    return points if voxel is None else {**points, "voxel": voxel}


def _slice_truth(scored: Sequence[Scored]) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Labels and scores of the slices of each scan whose lesions are known slice by slice."""
    known = [one for one in scored if one.case.known and len(one.slices) == one.case.image.shape[3]]
    return [(_lesion_slices(one.case), one.slices) for one in known]


def _lesion_slices(case: Case) -> NDArray[np.intp]:
    labels = np.zeros(case.image.shape[3], dtype=np.intp)
    labels[case.lesion_slices] = 1
    return labels


def _scan_truth(scored: Sequence[Scored]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Labels and scores (highest slice) of the scans whose answer is known."""
    pairs = [(_scan_answer(one.case), float(one.slices.max())) for one in scored]
    known = [(answer, score) for answer, score in pairs if answer >= 0]
    return np.array([answer for answer, _ in known], dtype=np.intp), np.array([score for _, score in known])


def _scan_answer(case: Case) -> int:
    return case.label if case.label >= 0 or case.lesion is None else int(len(case.lesion_slices) > 0)


def _voxel_point(scored: Sequence[Scored], now: str) -> dict[str, object] | None:
    """The probability threshold and least component that give the highest mean Dice over validation scans with lesion."""
    pairs = [(one.probability, one.case.lesion[0] > 0) for one in scored if one.probability is not None and one.case.lesion is not None]
    pairs = [(probability, lesion) for probability, lesion in pairs if lesion.any()]
    if not pairs:
        return None
    means = np.mean([_dice_table(probability, lesion) for probability, lesion in pairs], axis=0)
    threshold, least = np.unravel_index(means.argmax(), means.shape)
    return {
        "unit": "voxel",
        "threshold": float(_THRESHOLDS[threshold]),
        "min_voxels": _LEAST_VOXELS[least],
        "rule": "highest mean Dice of scans with lesion",
        "chosen_on": "validation",
        "locked_at": now,
        "n": len(pairs),
        "dice": float(means.max()),
    }


def _dice_table(probability: NDArray[np.float32], lesion: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice at every threshold and least component size."""
    table = np.zeros((len(_THRESHOLDS), len(_LEAST_VOXELS)))
    for row, threshold in enumerate(_THRESHOLDS):
        components, count = label(probability >= threshold, _CONNECTED_26)
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        hits = np.bincount(components[lesion], minlength=count + 1)
        sizes[0] = hits[0] = 0
        for column, least in enumerate(_LEAST_VOXELS):
            kept = sizes >= least
            table[row, column] = 2 * hits[kept].sum() / (sizes[kept].sum() + lesion.sum())
    return table
