"""Random views of a batch: one affine resampling, flips and intensity changes, for slices and volumes alike.

Only changes that scanners and protocols make too, no colour tricks. Values keep their meaning, such as HU, only where all changes of
intensity are off: bias, coarse, blur, gamma, histogram, gain, offset, noise, cutout.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views import intensity
from medssl.views.streams import Streams


@dataclass(frozen=True)
class Augment:
    """How strongly a batch is varied; 0 switches a part off, and 1 switches `area` off.

    Args:
        flip: Probability of a flip along each axis.
        rotate_degrees: Largest rotation, in the plane of the first two axes.
        scale: Largest relative zoom, such as 0.2 for 0.8 to 1.2.
        shift: Largest translation as a share of the crop.
        area: Smallest share of the crop's area or volume that a view shows, at a random place and enlarged to the crop's size.
        gain: Largest relative change of contrast.
        offset: Largest change of brightness, in units of the values' deviation.
        noise: Largest standard deviation of Gaussian noise, in the same units.
        blur: Probability of a 3-wide box blur.
        bias: Largest logarithm of a smooth field that values above the lowest are multiplied by; for MR.
        coarse: Probability of a resolution down to half of what it is.
        gamma: Largest logarithm of a power that values are raised to within their range.
        histogram: How far a random rising curve bends values within their range, up to 1.
        cutout: Probability of an erased box.

    Raises:
        ConfigError: A negative strength, a probability above 1, or an area of 0.
    """

    flip: float = 0.5
    rotate_degrees: float = 15.0
    scale: float = 0.15
    shift: float = 0.05
    area: float = 1.0
    gain: float = 0.2
    offset: float = 0.2
    noise: float = 0.1
    blur: float = 0.1
    bias: float = 0.0
    coarse: float = 0.0
    gamma: float = 0.0
    histogram: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        if min(getattr(self, part.name) for part in fields(self)) < 0:
            raise ConfigError("augmentation strengths must be >= 0")
        if max(self.flip, self.blur, self.coarse, self.cutout, self.histogram) > 1 or self.scale >= 1:
            raise ConfigError("flip, blur, coarse and cutout are probabilities (at most 1), histogram is at most 1 and scale below 1")
        if not 0 < self.area <= 1:
            raise ConfigError(f"area is a share above 0 and at most 1, got {self.area}")

    @property
    def resamples(self) -> bool:
        """Whether voxels move by parts of their size."""
        return max(self.rotate_degrees, self.scale, self.shift) > 0 or self.area < 1


@dataclass(frozen=True)
class View:
    """A varied batch.

    Args:
        images: (B, C, *S).
        theta: (B, D, D + 1) where a point of the view lies in the crop, in the coordinates of `torch.nn.functional.affine_grid`: -1 to 1
            between the outer edges, last axis first.
        masks: (B, M, *S) of 0 and 1 that moved with the images.
    """

    images: Tensor
    theta: Tensor
    masks: Tensor | None = None


def augment(images: Tensor, settings: Augment, *, streams: Streams, masks: Tensor | None = None) -> View:
    """Vary every sample on its own; what it gets does not depend on the batch around it.

    Args:
        images: (B, C, *S) float.
        settings: Strengths.
        streams: Randomness of each sample.
        masks: (B, M, *S) of 0 and 1, or bool, that move with the images, or None.
    """
    kind = images.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return _augmented(images, settings, streams, masks)  # bfloat16 would put voxels half a voxel beside their place


def _augmented(images: Tensor, settings: Augment, streams: Streams, masks: Tensor | None) -> View:
    drawn = _draw_theta(images, settings, streams=streams)
    theta = drawn.to(images.device, images.dtype, non_blocking=True)
    if settings.resamples:
        moved = _resampled(images, theta, outside="border")
        moved_masks = None if masks is None else (_resampled(masks.to(images), theta, outside="zeros") >= 0.5).to(masks.dtype)
    else:
        moved = _flipped(images, drawn)
        moved_masks = None if masks is None else _flipped(masks, drawn)
    return View(_vary_intensity(moved, settings, streams=streams), theta, moved_masks)


def _draw_theta(images: Tensor, settings: Augment, *, streams: Streams) -> Tensor:
    """(B, D, D + 1) affine matrices in normalised coordinates, D = 2 or 3, on the CPU."""
    batch, dims = len(images), images.ndim - 2
    angle = streams.uniform(low=-1, high=1) * math.radians(settings.rotate_degrees)
    zoom = 1 + streams.uniform(low=-1, high=1) * settings.scale
    flips = 1 - 2 * (streams.uniform(dims) < settings.flip).float()
    matrix = torch.eye(dims).repeat(batch, 1, 1)
    # affine_grid orders coordinates from the last axis to the first, so the first two axes of the crop are the last two columns
    first, second = dims - 1, dims - 2
    ratio = images.shape[2] / images.shape[3]
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, first, second], matrix[:, second, first] = -angle.sin() / ratio, angle.sin() * ratio
    matrix = matrix * (zoom[:, None] * flips)[:, :, None]
    shift = streams.uniform(dims, 1, low=-1, high=1) * settings.shift
    if settings.area < 1:
        edge = streams.uniform(low=settings.area) ** (1 / dims)
        place = streams.uniform(dims, 1, low=-1, high=1) * (1 - edge)[:, None, None]  # keeps the part inside the crop
        matrix, shift = matrix * edge[:, None, None], shift + matrix @ place
    return torch.cat([matrix, shift], dim=2)


def _resampled(images: Tensor, theta: Tensor, *, outside: Literal["border", "zeros"]) -> Tensor:
    """Images (B, C, *S) where theta says, linearly interpolated, as `torch.nn.functional.grid_sample` does.

    Volumes turn in the plane of their first two axes alone, so that their planes are resampled, all of a volume alike, and then the last
    axis by weights: the same numbers but for rounding, ten times as fast on a processor.
    """
    if images.ndim == 4:
        return _planes_resampled(images, theta, outside)
    batch, channels, *plane, depth = images.shape
    planes = images.permute(0, 1, 4, 2, 3).reshape(batch, channels * depth, *plane)
    planes = _planes_resampled(planes, theta[:, 1:, 1:], outside).view(batch, channels, depth, -1)
    weights = _weights_along(theta[:, 0, 0], theta[:, 0, 3], depth, outside)
    return (planes.transpose(2, 3) @ weights[:, None]).view(images.shape)


def _planes_resampled(planes: Tensor, theta: Tensor, outside: str) -> Tensor:
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode=outside, align_corners=False)


def _weights_along(scale: Tensor, shift: Tensor, size: int, outside: str) -> Tensor:
    """(B, size before, size after) linear weights of an axis whose normalised coordinates are scaled and shifted (B,)."""
    cells = torch.arange(size, device=scale.device, dtype=scale.dtype)
    places = ((scale[:, None] * ((2 * cells + 1) / size - 1) + shift[:, None] + 1) * size - 1) / 2
    if outside == "border":
        places = places.clamp(0, size - 1)
    return (1 - (places[:, None, :] - cells[:, None]).abs()).clamp(min=0)


def _flipped(images: Tensor, theta: Tensor) -> Tensor:
    """Images (B, C, *S) mirrored along the axes where theta, on the CPU, says so; exact, as no voxel is interpolated."""
    mirrored = theta.diagonal(dim1=1, dim2=2).flip(1) < 0  # (B, D), first axis first
    if not mirrored.any():
        return images
    return torch.stack(
        [image.flip([1 + axis for axis in row.nonzero()[:, 0].tolist()]) for image, row in zip(images, mirrored, strict=True)]
    )


def _vary_intensity(images: Tensor, settings: Augment, *, streams: Streams) -> Tensor:
    for name, change in intensity.IN_ORDER.items():
        strength = getattr(settings, name)
        if strength:
            images = change(images, strength, streams)
    return images
