"""Where cells of one view lie in another view of the same scan, exactly: through both crops' places and both views' affine maps.

Ideas: features of the same tissue in two overlapping crops agree, as in PixPro (Xie et al., 2021, https://arxiv.org/abs/2011.10043) and in
the winner of the SSL3D challenge 2025, which aligned the overlap of two crops. Positions are those of `torch.nn.functional.grid_sample`
(`align_corners=False`): -1 to 1 between the outer edges of a view, last axis first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from medssl.views.augment import View


@dataclass(frozen=True)
class Aligned:
    """Points of one view as seen in another.

    Args:
        positions: (B, N, D) in the other view, last axis first; 0 where there is no such point.
        known: (B, N) bool: the point shows the scan in both views, not what repeats beyond the edge of a crop.
    """

    positions: Tensor
    known: Tensor

    def at(self, places: Tensor) -> "Aligned":
        """The points of these numbers (B, K) alone."""
        return Aligned(self.positions.gather(1, places[:, :, None].expand(-1, -1, self.positions.shape[2])), self.known.gather(1, places))


def aligned(view: View, other: View, grid: Sequence[int], *, corner: Tensor, other_corner: Tensor) -> Aligned:
    """Where the centres of the cells of a view lie in another view.

    Args:
        view: The view with the cells.
        other: The view in which they are looked for; its crop has the same size.
        grid: Cells of the view along each axis; N is their product, in row-major order.
        corner: (B, D) voxel of the scan where the crop of the view begins, first axis first; NaN where the crops share no scan.
        other_corner: (B, D) the same of the other crop.
    """
    size = torch.tensor(view.images.shape[2:]).to(corner.device, non_blocking=True)
    offset = (2 * (corner - other_corner) / size).flip(1).to(view.theta)  # of crop to crop, in halves of a crop, last axis first
    centres = cell_centres(grid).to(view.theta, non_blocking=True)
    in_crop = _mapped(view.theta, centres.expand(len(offset), -1, -1))
    in_other_crop = in_crop + offset[:, None]
    in_other = _mapped(_inverse(other.theta), in_other_crop)
    inside = [(points.abs() <= 1).all(dim=2) for points in (in_crop, in_other_crop, in_other)]  # false for NaN
    known = torch.stack(inside).all(dim=0)
    return Aligned(torch.where(known[:, :, None], in_other, torch.zeros_like(in_other)), known)


def cell_centres(grid: Sequence[int]) -> Tensor:
    """(N, D) centres of the cells of a grid, row-major, coordinates last axis first."""
    axes = [(2 * torch.arange(cells) + 1) / cells - 1 for cells in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).flip(1)


def sampled(features: Tensor, positions: Tensor) -> Tensor:
    """Features (B, F, *G) at positions (B, N, D), last axis first -> (B, N, F), linear between cell centres."""
    dims = positions.shape[2]
    points = positions.reshape(len(positions), -1, *(1 for _ in range(dims - 1)), dims).to(features)
    return rearrange(F.grid_sample(features, points, padding_mode="border", align_corners=False), "b f n ... -> b n (f ...)")


def _mapped(theta: Tensor, points: Tensor) -> Tensor:
    """Points (B, N, D) through affine maps (B, D, D + 1), without a product that autocast would round."""
    return (theta[:, None, :, :-1] * points[:, :, None]).sum(dim=3) + theta[:, None, :, -1]


def _inverse(theta: Tensor) -> Tensor:
    """The affine maps (B, D, D + 1) that lead back."""
    matrix = torch.linalg.inv_ex(theta[:, :, :-1]).inverse  # `inv` waits for the device to hear that there is one
    return torch.cat([matrix, -(matrix * theta[:, None, :, -1]).sum(dim=2, keepdim=True)], dim=2)
