"""Images as sequences of patches, in 2D and 3D.

Shapes: images (B, C, *S), patches (B, N, P * C) with N the number of patches and P the voxels of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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


def patches_at(images: Tensor, patch: Sequence[int], places: Tensor) -> Tensor:
    """(B, C, *S) -> (B, M, P * C), the patches at `places` (B, M) alone: no others are copied."""
    grid, axes = grid_of(images.shape[2:], patch), _AXES[: len(patch)]
    outside = f"b {' '.join(axes)} {' '.join('p' + axis for axis in axes)} c"
    sizes = {f"p{axis}": width for axis, width in zip(axes, patch, strict=True)}
    view = rearrange(images, f"b c {' '.join(f'({axis} p{axis})' for axis in axes)} -> {outside}", **sizes)
    sample = torch.arange(len(images), device=images.device)[:, None]
    return view[(sample, *_unravelled(places, grid))].flatten(2)


def _unravelled(places: Tensor, grid: Sequence[int]) -> list[Tensor]:
    """Row-major places on a grid -> one tensor an axis; `torch.unravel_index` copies the grid to the device, for which it waits."""
    axes: list[Tensor] = []
    for cells in reversed(grid):
        axes.insert(0, places % cells)
        places = places // cells
    return axes


def unpatchify(patches: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """(B, N, P * C) -> (B, C, *S), the inverse of `patchify`."""
    axes = _AXES[: len(patch)]
    outside = f"b ({' '.join(axes)}) ({' '.join('p' + axis for axis in axes)} c)"
    inside = " ".join(f"({axis} p{axis})" for axis in axes)
    sizes = {f"p{axis}": width for axis, width in zip(axes, patch, strict=True)}
    return rearrange(patches, f"{outside} -> b c {inside}", **sizes, **dict(zip(axes, grid, strict=True)))


def sincos_positions(grid: Sequence[int], width: int, device: torch.device | None = None) -> Tensor:
    """(N, width) fixed sine-cosine positions over a grid of any size, computed once for each grid and device; not to be changed in place.

    Each axis gets an equal, even share of the width, the rest stays 0. Vaswani et al., 2017, section 3.5, applied per axis as in
    He et al., 2021.
    """
    return _sincos(tuple(grid), width, device or torch.device("cpu"))


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _sincos(grid: tuple[int, ...], width: int, device: torch.device) -> Tensor:
    share = width // (2 * len(grid))
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(share) / share)
    angles = (_coordinates(grid)[:, :, None] * frequencies).float()  # (N, axes, share)
    positions = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return torch.nn.functional.pad(positions, (0, width - positions.shape[1])).to(device)


def _coordinates(grid: Sequence[int]) -> Tensor:
    """(N, axes) of the cells of a grid, in row-major order."""
    return torch.stack(torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij"), dim=-1).flatten(0, -2)


@dataclass(frozen=True)
class Rotation:
    """Turns of pairs of channels, one a token and pair.

    Args:
        cos: (N, P) or (B, N, P); P pairs of channels of one attention head.
        sin: The same shape.
    """

    cos: Tensor
    sin: Tensor

    def at(self, visible: Tensor) -> "Rotation":
        """Those of the tokens in `visible` (B, N_visible)."""
        return Rotation(self.cos[visible], self.sin[visible])

    def after(self, count: int) -> "Rotation":
        """With `count` tokens without a position in front."""
        pad = (0, 0, count, 0)
        return Rotation(torch.nn.functional.pad(self.cos, pad, value=1.0), torch.nn.functional.pad(self.sin, pad))


def axial_rotation(grid: Sequence[int], head_width: int, base: float = 100.0, device: torch.device | None = None) -> Rotation:
    """Rotary positions over a grid of any size: each axis turns an equal share of the pairs of channels of a head; computed once.

    Su et al., "RoFormer", 2021, https://arxiv.org/abs/2104.09864; axial, base 100: Heo et al., "Rotary Position Embedding for Vision
    Transformer", 2024, https://arxiv.org/abs/2403.13298.
    """
    return _axial(tuple(grid), head_width, base, device or torch.device("cpu"))


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _axial(grid: tuple[int, ...], head_width: int, base: float, device: torch.device) -> Rotation:
    share = head_width // (2 * len(grid))
    frequencies = base ** (-torch.arange(share) / share)
    angles = (_coordinates(grid)[:, :, None] * frequencies).flatten(1)  # (N, P)
    return Rotation(angles.cos().to(device), angles.sin().to(device))


def rotate(channels: Tensor, rotation: Rotation) -> Tensor:
    """(B, heads, N, D) with its first 2 P channels turned, pair by pair (c, c + P); the others stay."""
    pairs = rotation.cos.shape[-1]
    cos, sin = (part.unsqueeze(-3).to(channels) for part in (rotation.cos, rotation.sin))  # over heads
    first, second, rest = channels[..., :pairs], channels[..., pairs : 2 * pairs], channels[..., 2 * pairs :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def as_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """(B, N, D) -> (B, D, *grid)."""
    axes = _AXES[: len(grid)]
    return rearrange(tokens, f"b ({' '.join(axes)}) d -> b d {' '.join(axes)}", **dict(zip(axes, grid, strict=True)))


def resized_positions(table: Tensor, grid: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """A learned table of positions (N, D) of one grid, interpolated linearly for another."""
    if tuple(grid) == tuple(wanted):
        return table
    known = as_map(table[None], grid)
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return torch.nn.functional.interpolate(known, size=tuple(wanted), mode=mode).flatten(2)[0].T
