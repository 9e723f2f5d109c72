"""Random views of a batch: one affine resampling, flips and intensity changes, for slices and volumes alike.

Only changes that scanners make too: gain, offset, gamma, noise, blur. No colour tricks, so that HU keep their meaning.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError


@dataclass(frozen=True)
class Augment:
    """How strongly a batch is varied; 0 switches a part off.

    Args:
        flip: Probability of a flip along each axis.
        rotate_degrees: Largest rotation, in the plane of the first two axes.
        scale: Largest relative zoom, such as 0.2 for 0.8 to 1.2.
        shift: Largest translation as a share of the crop.
        gain: Largest relative change of contrast.
        offset: Largest change of brightness, in units of the values' deviation.
        noise: Largest standard deviation of Gaussian noise.
        blur: Probability of a 3-wide box blur.

    Raises:
        ConfigError: A negative strength or a probability above 1.
    """

    flip: float = 0.5
    rotate_degrees: float = 15.0
    scale: float = 0.15
    shift: float = 0.05
    gain: float = 0.2
    offset: float = 0.2
    noise: float = 0.1
    blur: float = 0.1

    def __post_init__(self) -> None:
        if min(self.flip, self.rotate_degrees, self.scale, self.shift, self.gain, self.offset, self.noise, self.blur) < 0:
            raise ConfigError("augmentation strengths must be >= 0")
        if self.flip > 1 or self.blur > 1 or self.scale >= 1:
            raise ConfigError("flip and blur are probabilities (at most 1) and scale is below 1")


def augment(images: Tensor, masks: Tensor | None, settings: Augment, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Vary every sample on its own.

    Args:
        images: (B, C, *crop) float.
        masks: (B, M, *crop) of 0 and 1 that move with the images, or None.
        settings: Strengths.
        generator: Source of randomness, on the CPU.

    Returns:
        Images and masks of the same shapes; masks stay 0 or 1.
    """
    grid = F.affine_grid(_matrices(images, settings, generator=generator), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved_masks = None if masks is None else (F.grid_sample(masks, grid, align_corners=False) >= 0.5).to(masks.dtype)
    return _intensity(moved, settings, generator=generator), moved_masks


def _uniform(batch: int, largest: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(batch, generator=generator) * 2 - 1) * largest


def _matrices(images: Tensor, settings: Augment, *, generator: torch.Generator) -> Tensor:
    """(B, D, D + 1) affine matrices in normalised coordinates, D = 2 or 3."""
    batch, dims = len(images), images.ndim - 2
    angle = _uniform(batch, math.radians(settings.rotate_degrees), generator)
    zoom = 1 + _uniform(batch, settings.scale, generator)
    flips = 1 - 2 * (torch.rand(batch, dims, generator=generator) < settings.flip).float()
    matrix = torch.eye(dims).repeat(batch, 1, 1)
    # grid_sample orders coordinates from the last axis to the first, so the first two crop axes are the last two columns
    first, second = dims - 1, dims - 2
    ratio = images.shape[2] / images.shape[3]
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, first, second], matrix[:, second, first] = -angle.sin() / ratio, angle.sin() * ratio
    matrix = matrix * (zoom[:, None] * flips)[:, :, None]
    shift = (torch.rand(batch, dims, 1, generator=generator) * 2 - 1) * settings.shift
    return torch.cat([matrix, shift], dim=2).to(images.device, images.dtype)


def _intensity(images: Tensor, settings: Augment, *, generator: torch.Generator) -> Tensor:
    batch = len(images)
    shape = (batch, *(1 for _ in images.shape[1:]))
    gain = (1 + _uniform(batch, settings.gain, generator)).view(shape).to(images.device)
    offset = _uniform(batch, settings.offset, generator).view(shape).to(images.device)
    deviation = (torch.rand(batch, generator=generator) * settings.noise).view(shape)
    noise = torch.randn(images.shape, generator=generator).mul_(deviation).to(images.device)
    blurred = torch.rand(batch, generator=generator) < settings.blur
    if blurred.any():
        images = images.clone()
        images[blurred] = _box(images[blurred])
    return images * gain + offset + noise


def _box(images: Tensor) -> Tensor:
    pool = F.avg_pool2d if images.ndim == 4 else F.avg_pool3d
    return pool(images, 3, stride=1, padding=1, count_include_pad=False)
