"""Changes of values that scanners and scan protocols make too, each drawn from the streams of the samples.

Contrast curves follow Zhou et al., "Models Genesis", 2019, https://arxiv.org/abs/1908.06912, and the gamma, bias and low-resolution changes
Isensee et al., "nnU-Net", 2021, supplement; erased boxes are those of DeVries and Taylor, "Cutout", 2017,
https://arxiv.org/abs/1708.04552. Images are (B, C, *S); a sample changes alike in all its channels unless said otherwise.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.views.streams import Streams

_FIELD_POINTS = 4  # along each axis, of the coarse grid between which a bias field is interpolated
_CURVE_POINTS = 8  # between which a contrast curve is straight
_EPSILON = 1e-6


def bias(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Multiply what lies above the sample's lowest value by a smooth field between exp(-strength) and exp(strength), as coils do."""
    dims = images.ndim - 2
    points = streams.uniform(1, *[_FIELD_POINTS] * dims, low=-strength, high=strength).to(images, non_blocking=True)
    field = F.interpolate(points, size=images.shape[2:], mode=_linear(dims), align_corners=True).exp()
    lowest, _ = _limits(images)
    return lowest + (images - lowest) * field


def coarse(images: Tensor, probability: float, streams: Streams) -> Tensor:
    """Lower the resolution of some samples to between a half and all of theirs, and interpolate back."""
    factors = torch.where(streams.chance(probability), streams.uniform(low=0.5), 1.0).tolist()
    return torch.stack([image if factor == 1 else _coarser(image, factor) for image, factor in zip(images, factors, strict=True)])


def blur(images: Tensor, probability: float, streams: Streams) -> Tensor:
    """Average over 3 voxels along each axis that has them, in some samples."""
    chosen = streams.chance(probability)
    if not chosen.any():
        return images
    pool = F.avg_pool2d if images.ndim == 4 else F.avg_pool3d
    width = [3 if size >= 3 else 1 for size in images.shape[2:]]
    padding = [size // 2 for size in width]
    return torch.where(_each(chosen, images), pool(images, width, stride=1, padding=padding, count_include_pad=False), images)


def gamma(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Raise values, as shares of a channel's range, to a power between exp(-strength) and exp(strength)."""
    power = _each(streams.uniform(low=-strength, high=strength).exp(), images)
    lowest, width = _limits(images)
    return lowest + width * ((images - lowest) / width).clamp(min=_EPSILON).pow(power)


def histogram(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Bend values, as shares of a channel's range, along a random rising curve; at strength 1 parts of it are nearly flat."""
    spacing = 1 / (_CURVE_POINTS - 1)
    inner = streams.uniform(_CURVE_POINTS - 2, low=-0.5, high=0.5) * strength * spacing
    curve = (F.pad(inner, (1, 1)) + torch.linspace(0, 1, _CURVE_POINTS)).to(images, non_blocking=True)  # (B, points), its ends stay
    lowest, width = _limits(images)
    place = ((images - lowest) / (width * spacing)).clamp(0, _CURVE_POINTS - 1)
    below = place.long().clamp(max=_CURVE_POINTS - 2)
    start, end = (curve.gather(1, (below + step).flatten(1)).view_as(images) for step in (0, 1))
    return lowest + width * torch.lerp(start, end, place - below)


def gain(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Multiply by between 1 - strength and 1 + strength."""
    return images * _each(1 + streams.uniform(low=-1, high=1) * strength, images)


def offset(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Add between -strength and strength deviations of the sample's values."""
    return images + _each(streams.uniform(low=-1, high=1) * strength, images) * _spread(images)


def noise(images: Tensor, strength: float, streams: Streams) -> Tensor:
    """Add Gaussian noise of up to `strength` deviations of the sample's values, in every channel its own."""
    deviation = _each(streams.uniform(high=strength), images) * _spread(images)
    return torch.addcmul(images, streams.normal(*images.shape[1:], device=images.device), deviation)


def cutout(images: Tensor, probability: float, streams: Streams) -> Tensor:
    """Erase a box in some samples: 10 to 40 % of each edge becomes the mean of its channel."""
    chosen, dims = streams.chance(probability), images.ndim - 2
    share, place = streams.uniform(dims, low=0.1, high=0.4), streams.uniform(dims)
    erased = chosen.view(-1, *[1] * dims)  # (B, *S) bool, one axis after the other
    for axis, length in enumerate(images.shape[2:]):
        start = place[:, axis] * (1 - share[:, axis])
        centres = (torch.arange(length) + 0.5) / length
        inside = (centres >= start[:, None]) & (centres < (start + share[:, axis])[:, None])
        erased = erased & inside.view(-1, *[length if other == axis else 1 for other in range(dims)])
    mean = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
    return torch.where(erased[:, None].to(images.device, non_blocking=True), mean, images)


IN_ORDER: dict[str, Callable[[Tensor, float, Streams], Tensor]] = {
    part.__name__: part for part in (bias, coarse, blur, gamma, histogram, gain, offset, noise, cutout)
}
"""By name, in the order in which a scanner and its display bring them about."""


def _each(values: Tensor, images: Tensor) -> Tensor:
    """(B,) values, one a sample, in a shape that goes with the images."""
    return values.view(-1, *(1 for _ in images.shape[1:])).to(images.device, non_blocking=True)


def _spread(images: Tensor) -> Tensor:
    """Deviation of each sample's values, (B, 1, ...): about 1 where scans are standardised, less where they are shares of a window."""
    return images.std(dim=tuple(range(1, images.ndim)), correction=0, keepdim=True)


def _limits(images: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest value of each sample's channels, and how far the highest lies above it (> 0), (B, C, 1, ...) each."""
    axes = tuple(range(2, images.ndim))
    lowest = images.amin(dim=axes, keepdim=True)
    return lowest, (images.amax(dim=axes, keepdim=True) - lowest).clamp(min=_EPSILON)


def _coarser(image: Tensor, factor: float) -> Tensor:
    """(C, *S) down to `factor` of its resolution, by averaging, and back up."""
    size = image.shape[1:]
    small = F.interpolate(image[None], size=[max(round(length * factor), 1) for length in size], mode="area")
    return F.interpolate(small, size=size, mode=_linear(len(size)), align_corners=False)[0]


def _linear(dims: int) -> str:
    return "bilinear" if dims == 2 else "trilinear"
