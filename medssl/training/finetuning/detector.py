"""Training of a detector: where lesions have their centres, and how large they are.

Zhou et al., "Objects as Points", 2019, https://arxiv.org/abs/1904.07850: penalty-reduced focal loss (equation 1), L1 on size and offset
at the centres, weights 0.1 and 1. The spread of the heat follows the box along each axis, as in TTFNet (Liu et al., 2019,
https://arxiv.org/abs/1909.00700), so that flat lesions of thick slices have flat heat.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from torch import Tensor

from medssl.models.detection import Box
from medssl.objectives.processes import mean_of
from medssl.training.finetuning.lesions import LesionModule

_SPREAD = 0.54 / 6  # standard deviation of the heat over the size of the box, from TTFNet
_LEAST_SPREAD = 0.4  # of a cell
_SIZE_WEIGHT = 0.1


class Detector(LesionModule):
    """Lesion detection from crops with masks, whose components are the lesions."""

    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """Focal loss of the heat and L1 of size and offset.

        Args:
            logits: (B, 1 + 2 d, *G) of a `CentreDetector`.
            lesion: (B, 1, *S), above 0 where lesion is.
            label: Not used.
        """
        del label
        boxes = [boxes_of(mask[0]) for mask in (lesion > 0).cpu().numpy()]
        wanted = torch.stack([targets(one, lesion.shape[2:], logits.shape[2:]) for one in boxes]).to(logits.device)
        return detection_loss(logits.float(), wanted)


def boxes_of(mask: NDArray[np.bool_]) -> list[Box]:
    """The bounding boxes of the components of a mask of any number of axes, corners connected."""
    components, _ = label(mask, np.ones((3,) * mask.ndim))
    sides = [[(part.start, part.stop) for part in found] for found in find_objects(components)]
    return [
        Box(tuple((first + stop - 1) / 2 for first, stop in box), tuple(float(stop - first) for first, stop in box), 1.0) for box in sides
    ]


def targets(boxes: Sequence[Box], shape: Sequence[int], grid: Sequence[int]) -> Tensor:
    """What a detector should say of a crop.

    Args:
        boxes: Lesions, in voxels of the crop.
        shape: Voxels of the crop.
        grid: Cells of the detector.

    Returns:
        (2 + 2 d, *G): heat, 1 at the cell of each centre; size in cells and place in the cell, at those cells alone; 1 at those cells.
    """
    dims = len(grid)
    wanted = torch.zeros(2 + 2 * dims, *grid)
    step = np.array(shape) / np.array(grid)
    axes = torch.meshgrid(*(torch.arange(cells, dtype=torch.float32) for cells in grid), indexing="ij")
    for box in boxes:
        place, size = (np.array(box.centre) + 0.5) / step, np.array(box.size) / step
        cell = np.clip(np.floor(place), 0, np.array(grid) - 1).astype(int)
        spread = np.maximum(_SPREAD * size, _LEAST_SPREAD)
        distance = torch.stack([(axis - int(at)).square() / (2 * wide**2) for axis, at, wide in zip(axes, cell, spread, strict=True)])
        wanted[0] = torch.maximum(wanted[0], torch.exp(-distance.sum(dim=0)))
        wanted[(slice(1, None), *cell)] = torch.tensor([*size, *(place - cell), 1.0], dtype=torch.float32)
    return wanted


def detection_loss(maps: Tensor, wanted: Tensor) -> Tensor:
    """Equations 1 to 4 of CenterNet, averaged over the lesions of the batch of all processes.

    Args:
        maps: (B, 1 + 2 d, *G) of a detector, the heat as logits.
        wanted: (B, 2 + 2 d, *G) of `targets`.
    """
    dims = maps.ndim - 2
    centre = wanted[:, -1]
    heat = focal(maps[:, 0], wanted[:, 0], centre).sum()
    error = (maps[:, 1:] - wanted[:, 1:-1]).abs() * centre[:, None]
    size, offset = error[:, :dims].sum(), error[:, dims:].sum()
    return mean_of(heat + _SIZE_WEIGHT * size + offset, centre.sum())


def focal(logits: Tensor, heat: Tensor, centre: Tensor) -> Tensor:
    """The penalty-reduced focal loss of every cell, alpha = 2 and beta = 4 (equation 1).

    Args:
        logits: Of the heat.
        heat: Wanted, 0 to 1.
        centre: 1 at the cells of centres.
    """
    probability = logits.sigmoid()
    at_centre = (1 - probability).square() * F.logsigmoid(logits)
    elsewhere = (1 - heat).pow(4) * probability.square() * F.logsigmoid(-logits)
    return -torch.where(centre > 0, at_centre, elsewhere)
