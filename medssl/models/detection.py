"""From the maps of a detector to lesions of a whole scan: peaks of each window, one of several boxes on one lesion, slices joined.

Each place of a scan belongs to the window whose middle is nearest, so a lesion that the edge of one window cuts is read from another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medssl.models.architecture import Network
from medssl.models.inference import Window, foreground_box, with_context

LEAST_SCORE = 0.05  # peaks below are not kept
_MOST = 100  # peaks of a window, as in CenterNet
_SAME = 0.2  # boxes that overlap by more are one lesion, as are those whose centre lies in the middle half of a better one


@dataclass(frozen=True)
class Box:
    """A lesion by its box.

    Args:
        centre: Voxel indices along each axis.
        size: Voxels along each axis.
        score: 0 to 1.
    """

    centre: tuple[float, ...]
    size: tuple[float, ...]
    score: float

    @property
    def lower(self) -> NDArray[np.float64]:
        """The lower edge along each axis; voxel i reaches from i - 0.5 to i + 0.5."""
        return np.array(self.centre) - np.array(self.size) / 2

    @property
    def upper(self) -> NDArray[np.float64]:
        """The upper edge along each axis."""
        return np.array(self.centre) + np.array(self.size) / 2


@torch.inference_mode()
def detections(network: Network, image: Tensor, window: Window) -> list[Box]:
    """Lesions of a scan, best first.

    Args:
        network: A detector in eval mode.
        image: (C, I, J, K) preprocessed values on the network's device.
        window: Size and averaging.
    """
    i, j, k = foreground_box(image, window.size) if window.foreground else (slice(0, size) for size in image.shape[1:])
    part, start = image[:, i, j], np.array([i.start, j.start, k.start])
    if network.spatial_dims == 3:
        found = _volume(network, part[..., k], window)
    else:
        slices = with_context(part, window.context)[k]
        found = joined([suppressed(_volume(network, one, window)) for one in slices])
    return [Box(tuple(map(float, np.array(box.centre) + start)), box.size, box.score) for box in suppressed(found)]


def slice_heights(boxes: Sequence[Box], slices: int) -> NDArray[np.float32]:
    """(K,) the score of the best lesion that reaches into each slice; 0 where there is none."""
    scores = np.zeros(slices, np.float32)
    for box in boxes:
        first, last = (int(np.clip(np.rint(edge), 0, slices - 1)) for edge in (box.lower[2] + 0.49, box.upper[2] - 0.49))
        scores[first : last + 1] = np.maximum(scores[first : last + 1], box.score)
    return scores


def peaks(maps: Tensor, stride: Sequence[int], *, least: float = LEAST_SCORE) -> list[Box]:
    """Cells whose heat is the highest of their neighbourhood of 3 cells, best first.

    Args:
        maps: (1 + 2 d, *G): probability of the heat, size in cells, place in the cell.
        stride: Voxels of a cell along each axis.
        least: Lowest score.
    """
    heat, dims = maps[0], maps.ndim - 1
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    top = (pool(heat[None, None], 3, stride=1, padding=1)[0, 0] == heat) & (heat >= least)
    cells = top.nonzero()
    order = heat[tuple(cells.T)].argsort(descending=True, stable=True)[:_MOST]
    cells, step = cells[order], torch.tensor(stride, dtype=torch.float32, device=maps.device)
    values = maps[(slice(None), *cells.T)].T  # (N, 1 + 2 d)
    sizes = (values[:, 1 : 1 + dims] * step).clamp(min=1.0)
    centres = (cells + values[:, 1 + dims :].clamp(0, 1)) * step - 0.5
    return [
        Box(tuple(centre), tuple(size), score)
        for centre, size, score in zip(centres.tolist(), sizes.tolist(), values[:, 0].tolist(), strict=True)
    ]


def suppressed(boxes: Sequence[Box]) -> list[Box]:
    """The best of each group of boxes on one lesion, best first (greedy non-maximum suppression)."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda one: -one.score):
        if not any(_one_lesion(box, other) for other in kept):
            kept.append(box)
    return kept


def _one_lesion(box: Box, better: Box) -> bool:
    inside = bool(np.all(np.abs(np.array(box.centre) - np.array(better.centre)) < np.array(better.size) / 4))
    return inside or overlap(box, better) > _SAME


def overlap(first: Box, second: Box) -> float:
    """IoU of two boxes."""
    sides = np.minimum(first.upper, second.upper) - np.maximum(first.lower, second.lower)
    both = float(np.prod(np.clip(sides, 0, None)))
    return both / (float(np.prod(first.size)) + float(np.prod(second.size)) - both)


def joined(slices: Sequence[Sequence[Box]]) -> list[Box]:
    """Boxes of slices as boxes of a volume: those that overlap in neighbouring slices are one lesion, with the score of the best.

    Args:
        slices: Boxes (I, J) of each slice along K.
    """
    chains: list[list[tuple[int, Box]]] = []
    for k, boxes in enumerate(slices):
        open_chains = [chain for chain in chains if chain[-1][0] == k - 1]
        for box in sorted(boxes, key=lambda one: -one.score):
            near = [chain for chain in open_chains if overlap(chain[-1][1], box) > _SAME]
            if near:
                best = max(near, key=lambda chain: overlap(chain[-1][1], box))
                best.append((k, box))
                open_chains = [chain for chain in open_chains if chain is not best]
            else:
                chains.append([(k, box)])
    return [_whole(chain) for chain in chains]


def _whole(chain: Sequence[tuple[int, Box]]) -> Box:
    lower = np.min([box.lower for _, box in chain], axis=0)
    upper = np.max([box.upper for _, box in chain], axis=0)
    first, last = chain[0][0], chain[-1][0]
    centre = (*((lower + upper) / 2).tolist(), (first + last) / 2)
    return Box(centre, (*(upper - lower).tolist(), float(last - first + 1)), max(box.score for _, box in chain))


def _volume(network: Network, image: Tensor, window: Window) -> list[Box]:
    """Peaks of all windows over an image (C, *S), each where its window is the nearest one."""
    padded, before = _padded(image, window.size)
    starts = [_starts(length, width, window.overlap) for length, width in zip(padded.shape[1:], window.size, strict=True)]
    found: list[Box] = []
    for corners in _batches(list(product(*starts)), window.batch):
        crops = torch.stack([padded[(slice(None), *map(slice, corner, np.add(corner, window.size)))] for corner in corners])
        maps = averaged(network, crops, window.mirrors)
        stride = [width // cells for width, cells in zip(window.size, maps.shape[2:], strict=True)]
        for corner, one in zip(corners, maps, strict=True):
            mine = [_moved(box, np.array(corner)) for box in peaks(one, stride)]
            found += [_moved(box, -before) for box in mine if _nearest(box, corner, starts, window.size)]
    shape = np.array(image.shape[1:])
    return [box for box in found if np.all(np.array(box.centre) > -0.5) and np.all(np.array(box.centre) < shape - 0.5)]


def averaged(network: Network, images: Tensor, mirrors: Sequence[Sequence[int]]) -> Tensor:
    """Maps (B, 1 + 2 d, *G) with probabilities in place of logits, averaged over mirror images along the axes of each, see `Window`."""
    maps = torch.stack([_mirrored(network, images, axes) for axes in mirrors]).mean(dim=0)
    maps[:, 0] = maps[:, 0].sigmoid()
    return maps


def _mirrored(network: Network, images: Tensor, axes: Sequence[int]) -> Tensor:
    """Maps of the images mirrored along axes, mirrored back: a centre that lay low in its cell along one of them lies high there."""
    places, offsets = ([first + axis for axis in axes] for first in (2, 1 + network.spatial_dims))
    maps: Tensor = network(images.flip(places)).float().flip(places)
    maps[:, offsets] = 1 - maps[:, offsets]
    return maps


def _padded(image: Tensor, size: Sequence[int]) -> tuple[Tensor, NDArray[np.int_]]:
    """The image with repeated edges where it is smaller than a window, and how many voxels came in front along each axis."""
    missing = [max(0, width - length) for length, width in zip(image.shape[1:], size, strict=True)]
    before = [count // 2 for count in missing]
    pads = [part for count, front in zip(reversed(missing), reversed(before), strict=True) for part in (front, count - front)]
    padded: Tensor = F.pad(image[None], pads, mode="replicate")[0]
    return padded, np.array(before)


def _starts(length: int, width: int, share: float) -> list[int]:
    """First voxels of windows that cover an axis and overlap by at least a share."""
    count = 1 + max(0, int(np.ceil((length - width) / max(1.0, width * (1 - share)))))
    return sorted({round(float(start)) for start in np.linspace(0, length - width, count)})


def _batches(corners: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    for first in range(0, len(corners), size):
        yield corners[first : first + size]


def _moved(box: Box, by: NDArray[np.int_]) -> Box:
    return Box(tuple(map(float, np.array(box.centre) + by)), box.size, box.score)


def _nearest(box: Box, corner: Sequence[int], starts: Sequence[Sequence[int]], size: Sequence[int]) -> bool:
    """Whether no other window has its middle nearer to the centre of a box."""
    middles = [np.array(axis) + width / 2 for axis, width in zip(starts, size, strict=True)]
    return all(
        abs(place - (first + width / 2)) <= np.abs(others - place).min() + 1e-6
        for place, first, width, others in zip(box.centre, corner, size, middles, strict=True)
    )
