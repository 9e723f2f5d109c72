"""Images as sequences of patches, in 2D and 3D.

Shapes: images (B, C, *S), patches (B, N, P * C) with N the number of patches and P the voxels of one.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from medssl.errors import ConfigError

_AXES = "ijk"


def grid_of(shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Patches along each axis.

    Raises:
        ConfigError: The shape is no multiple of the patch.
    """
    if len(shape) != len(patch) or any(size % width for size, width in zip(shape, patch, strict=False)):
        raise ConfigError(f"crop {list(shape)} is not a multiple of patch {list(patch)}; change one of them")
    return tuple(size // width for size, width in zip(shape, patch, strict=True))


def patchify(images: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, *S) -> (B, N, P * C), patches in row-major order."""
    grid_of(images.shape[2:], patch)
    axes = _AXES[: len(patch)]
    inside = " ".join(f"({axis} p{axis})" for axis in axes)
    outside = f"b ({' '.join(axes)}) ({' '.join('p' + axis for axis in axes)} c)"
    return rearrange(images, f"b c {inside} -> {outside}", **{f"p{axis}": width for axis, width in zip(axes, patch, strict=True)})


def unpatchify(patches: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """(B, N, P * C) -> (B, C, *S), the inverse of `patchify`."""
    axes = _AXES[: len(patch)]
    outside = f"b ({' '.join(axes)}) ({' '.join('p' + axis for axis in axes)} c)"
    inside = " ".join(f"({axis} p{axis})" for axis in axes)
    sizes = {f"p{axis}": width for axis, width in zip(axes, patch, strict=True)}
    return rearrange(patches, f"{outside} -> b c {inside}", **sizes, **dict(zip(axes, grid, strict=True)))


def sincos_positions(grid: Sequence[int], width: int) -> Tensor:
    """(N, width) fixed sine-cosine positions over a grid of any size.

    Each axis gets an equal, even share of the width, the rest stays 0. Vaswani et al., 2017, section 3.5, applied per axis as in
    He et al., 2021.
    """
    share = width // (2 * len(grid))
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(share) / share)
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij"), dim=-1).flatten(0, -2)
    angles = (coordinates[:, :, None] * frequencies).float()  # (N, axes, share)
    positions = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return torch.nn.functional.pad(positions, (0, width - positions.shape[1]))
