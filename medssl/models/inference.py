"""A network over a whole scan: sliding windows in 2D or 3D, averaged over flips."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from medssl.models.architecture import Network


@dataclass(frozen=True)
class Window:
    """How a network looks at a scan.

    Args:
        size: Window along each axis, as in training.
        context: Neighbouring slices stacked as channels; 1 for volumes.
        flips: Average over flips of the first two axes.
        overlap: Overlap of windows, 0 to 1.
        batch: Windows at once.
    """

    size: tuple[int, ...]
    context: int = 1
    flips: bool = True
    overlap: float = 0.5
    batch: int = 16


@torch.inference_mode()
def probabilities(network: Network, image: Tensor, window: Window) -> Tensor:
    """Lesion probability of a scan.

    Args:
        network: A network with one output channel, in eval mode.
        image: (C, I, J, K) preprocessed values on the network's device.
        window: Size and averaging.

    Returns:
        (I, J, K) from a segmenter, (K,) from a classifier of slices, (1,) from a classifier of volumes; float32, 0 to 1, on the CPU.
    """
    batch = with_context(image, window.context) if network.spatial_dims == 2 else image[None]
    flips = _flips(network.spatial_dims) if window.flips else [()]
    total = torch.stack([_logits(network, batch, window, flip) for flip in flips]).mean(dim=0).sigmoid()
    if network.task == "classification":
        return total[:, 0].float().cpu()
    return (total[:, 0].movedim(0, -1) if network.spatial_dims == 2 else total[0, 0]).float().cpu()


def with_context(image: Tensor, context: int) -> Tensor:
    """(C, I, J, K) -> (K, C * context, I, J): each slice with its neighbours, edges repeated."""
    slices = image.shape[3]
    offsets = torch.arange(context) - context // 2
    picks = (torch.arange(slices)[:, None] + offsets).clamp(0, slices - 1)  # (K, context)
    return image[..., picks].permute(3, 0, 4, 1, 2).flatten(1, 2)


def _flips(spatial_dims: int) -> list[tuple[int, ...]]:
    axes = (2, 3)[:spatial_dims]
    return [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]


def _logits(network: Network, images: Tensor, window: Window, flip: tuple[int, ...]) -> Tensor:
    flipped = images.flip(flip) if flip else images
    if network.task == "classification":
        pieces = [network(_fit(part, window.size)) for part in torch.split(flipped, window.batch)]
        return torch.cat(pieces).float()
    logits = sliding_window_inference(
        flipped, window.size, window.batch, network, overlap=window.overlap, mode="gaussian", padding_mode="replicate"
    )
    if not isinstance(logits, Tensor):
        raise TypeError("a segmenter returns one tensor")
    return (logits.flip(flip) if flip else logits).float()


def _fit(images: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *S) resized to the crop of training; a classifier sees the whole slice or volume at once."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return torch.nn.functional.interpolate(images, size=tuple(size), mode="bilinear" if images.ndim == 4 else "trilinear")


def slice_scores(lesion: Tensor, share: float = 0.002) -> Tensor:
    """Suspicion of each slice: the mean of its highest probabilities.

    Args:
        lesion: (I, J, K) probabilities.
        share: Share of a slice's voxels that counts, at least one voxel.

    Returns:
        (K,) scores, 0 to 1.
    """
    flat = lesion.flatten(0, 1)
    return flat.topk(max(1, round(share * flat.shape[0])), dim=0).values.mean(dim=0)
