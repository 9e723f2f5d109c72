"""How far what a network says of one scan is from what is known of it, class by class."""

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.case import Case, Target
from medssl.evaluation.multiclass import class_dice
from medssl.models.outputs import Outputs

_EDGE = 1e-6  # a probability of 0 has no logarithm
_HALF = 0.5


def targets(case: Case, units: int) -> list[Target]:
    """The answers of a scan that a classifier learns: of its slices where it scores those, else that of the scan.

    Args:
        case: The scan.
        units: How many scores it gets.
    """
    return [case.slice_target(k) for k in range(units)] if units == case.shape[3] else [case.target]


def label_loss(case: Case, channels: NDArray[np.floating], outputs: Outputs) -> float | None:
    """Mean cross entropy of a classifier with the answers of a scan that it learns; None where none is known.

    Args:
        case: The scan.
        channels: (channels, N) probabilities of its slices, or (channels, 1) of the scan.
        outputs: What the channels mean.
    """
    truth = np.array(targets(case, channels.shape[1]))  # (N, 1), the index of one class, or (N, channels)
    kept = (truth >= 0).all(axis=1)
    if not kept.any():
        return None
    truth, said = truth[kept], channels.T[kept]
    return _cross_entropy(np.take_along_axis(said, truth, axis=1) if outputs.softmax else np.where(truth, said, 1 - said))


def voxel_loss(case: Case, channels: NDArray[np.floating], outputs: Outputs) -> float | None:
    """Mean cross entropy of the voxels (channels, I, J, K) of a segmenter; None where it is not known where lesion is."""
    if not case.known:
        return None
    numbers = _numbers(case)[None]
    return _cross_entropy(np.take_along_axis(channels, numbers, axis=0) if outputs.softmax else np.where(numbers, channels, 1 - channels))


def class_overlaps(case: Case, channels: NDArray[np.float32], outputs: Outputs) -> tuple[float | None, ...]:
    """Dice of each class of a segmenter, whose mask is cut at 0.5 as scoring would; None for a class neither called nor there."""
    probabilities = torch.from_numpy(channels)
    positive, others = outputs.likeliest(probabilities)
    called = torch.where(outputs.suspicion(probabilities) >= _HALF, positive, others)
    return class_dice(called.numpy(), _numbers(case), len(outputs.names))


def classes_in(case: Case) -> set[int]:
    """The numbers of the classes that the mask of a scan holds; the first is 1."""
    return {number for value, number in case.numbers.items() if len(case.slices_of(value))}


def _numbers(case: Case) -> NDArray[np.uint8]:
    """(I, J, K) the number of the class of each voxel, 0 for none."""
    mask = case.class_mask()
    return np.zeros(case.shape[1:], np.uint8) if mask is None else mask[0]


def _cross_entropy(right: NDArray[np.floating]) -> float:
    """The mean over probabilities of what is right."""
    return float(-np.log(np.clip(right, _EDGE, 1)).mean())
