"""A network over a whole scan: sliding windows in 2D or 3D, averaged with mirror images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.architecture import Network

_NOISE = 0.005  # share of a plane


@dataclass(frozen=True)
class Window:
    """How a network looks at a scan.

    Args:
        size: Window along each axis, as in training.
        context: Neighbouring slices stacked as channels; 1 for volumes.
        flips: Average with the mirror image, left and right exchanged; or the axes (0 for I, 1 for J, 2 for K) along which the scan is
            mirrored, alone and together: n axes make 2^n images.
        overlap: Overlap of windows, 0 to 1.
        batch: Windows at once.
        foreground: A segmenter looks at the box around everything that is not background; outside of it the probability is 0.

    Raises:
        ConfigError: A mirror axis that the windows do not have, or one twice.
    """

    size: tuple[int, ...]
    context: int = 1
    flips: bool | tuple[int, ...] = True
    overlap: float = 0.5
    batch: int = 16
    foreground: bool = True

    def __post_init__(self) -> None:
        axes = self.mirrored
        if len(set(axes)) < len(axes) or not set(axes) <= set(range(len(self.size))):
            raise ConfigError(f"mirror axes must be different numbers below {len(self.size)}, the axes of a window, got {list(axes)}")

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The axes along which the scan is mirrored."""
        return self.flips if isinstance(self.flips, tuple) else (0,) * self.flips

    @property
    def mirrors(self) -> list[tuple[int, ...]]:
        """The axes of each image that is averaged; the first is the scan itself."""
        return [some for count in range(len(self.mirrored) + 1) for some in combinations(self.mirrored, count)]


def probabilities(network: Network, image: Tensor, window: Window) -> Tensor:
    """Lesion probability of a scan: that of any positive class.

    Args:
        network: In eval mode.
        image: (C, I, J, K) preprocessed values on the network's device.
        window: Size and averaging.

    Returns:
        (I, J, K) from a segmenter, (K,) from a classifier of slices, (1,) from a classifier of volumes or of bags; float32, 0 to 1, on the
        CPU.
    """
    return network.outputs.suspicion(channel_probabilities(network, image, window))


@torch.inference_mode()
def channel_probabilities(network: Network, image: Tensor, window: Window) -> Tensor:
    """The same of each output channel: (channels, I, J, K), (channels, K) or (channels, 1).

    Raises:
        ConfigError: A network with other channels than its classes need.
    """
    flat = network.spatial_dims == 2
    if network.task == "classification":
        return _averaged(network, with_context(image, window.context) if flat else image[None], window).T.cpu()
    found = torch.zeros(network.outputs.channels, *image.shape[1:])
    found[0] = float(network.outputs.background)
    box = foreground_box(image, window.size) if window.foreground else (slice(None),) * 3
    i, j, k = box
    inside = _averaged(network, with_context(image[:, i, j], window.context)[k] if flat else image[None, :, i, j, k], window)
    found[(slice(None), *box)] = (inside.permute(1, 2, 3, 0) if flat else inside[0]).cpu()
    return found


def foreground_box(image: Tensor, size: Sequence[int]) -> tuple[slice, slice, slice]:
    """The smallest box around everything that is not background, at least as large as a window where the scan is.

    Background is what lies below a tenth of the way from the 1st to the 99th percentile, in every channel, after a mean over
    3 x 3 voxels in the plane; a plane of the scan with less than 0.5 % above that is background, so that noise in air does not count.

    Args:
        image: (C, I, J, K) preprocessed values.
        size: Window along I, J and, for volumes, K.
    """
    smooth = torch.nn.functional.avg_pool3d(image.float(), (3, 3, 1), stride=1, padding=(1, 1, 0), count_include_pad=False)
    flat = smooth.flatten(1)
    dark, bright = (flat.kthvalue(max(1, round(share * flat.shape[1])), dim=1).values for share in (0.01, 0.99))
    level = dark + 0.1 * (bright - dark)
    inside = (smooth > level[:, None, None, None]).any(dim=0).float()
    sides = (inside.mean(dim=(1, 2)) > _NOISE, inside.mean(dim=(0, 2)) > _NOISE, inside.mean(dim=(0, 1)) > _NOISE)
    i, j, k = (_side(side, least) for side, least in zip(sides, (*size, 1)[:3], strict=True))
    return i, j, k


def _side(inside: Tensor, least: int) -> slice:
    """The part of one axis that holds everything inside, widened to `least` voxels where the axis has them."""
    found = inside.nonzero()[:, 0]
    if len(found) == 0:
        return slice(0, len(inside))
    first, last = int(found[0]), int(found[-1]) + 1
    first = max(0, min(first - max(0, least - (last - first)) // 2, len(inside) - least))
    return slice(first, min(len(inside), max(last, first + least)))


def _averaged(network: Network, batch: Tensor, window: Window) -> Tensor:
    """Probabilities (B, channels, *S) or (B, channels) of slices or of one volume, averaged over mirror images as logits."""
    logits = torch.stack([_logits(network, batch, window, axes) for axes in window.mirrors]).mean(dim=0)
    if logits.shape[1] != network.outputs.channels:
        raise ConfigError(f"the network gives {logits.shape[1]} channels, its classes need {network.outputs.channels}; change its classes")
    return network.outputs.probabilities(logits)


def with_context(image: Tensor, context: int) -> Tensor:
    """(C, I, J, K) -> (K, C * context, I, J): each slice with its neighbours, edges repeated."""
    slices = image.shape[3]
    offsets = torch.arange(context) - context // 2
    picks = (torch.arange(slices)[:, None] + offsets).clamp(0, slices - 1)  # (K, context)
    return image[..., picks].permute(3, 0, 4, 1, 2).flatten(1, 2)


def _logits(network: Network, images: Tensor, window: Window, axes: Sequence[int]) -> Tensor:
    """Logits of the images mirrored along axes of the window, mirrored back."""
    places = [2 + axis for axis in axes]
    flipped = images.flip(places)
    if network.bags:
        bag: Tensor = network(fitted(flipped, window.size)[None])
        return bag.float()
    if network.task == "classification":
        pieces = [network(fitted(part, window.size)) for part in torch.split(flipped, window.batch)]
        return torch.cat(pieces).float()
    logits = sliding_window_inference(
        flipped, window.size, window.batch, network, overlap=window.overlap, mode="gaussian", padding_mode="replicate"
    )
    if not isinstance(logits, Tensor):
        raise TypeError("a segmenter returns one tensor")
    return logits.flip(places).float()


def fitted(images: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *S) resized to the size of a crop: a classifier sees the whole slice or volume at once, in training as when it scores."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return torch.nn.functional.interpolate(images, size=tuple(size), mode="bilinear" if images.ndim == 4 else "trilinear")


def fit_of(task: str) -> Callable[[Tensor, Sequence[int]], Tensor] | None:
    """What resizes the samples that a network of a task learns from: `fitted` for a classifier, None for those that learn from crops."""
    return fitted if task == "classification" else None


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
