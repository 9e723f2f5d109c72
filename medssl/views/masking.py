"""What is hidden from the encoder, as patches or as a grid of blocks.

Random: He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021, section 3, https://arxiv.org/abs/2111.06377. Boxes: Bao et al.,
"BEiT", 2021, algorithm 1, https://arxiv.org/abs/2106.08254, and Assran et al., "I-JEPA", 2023, https://arxiv.org/abs/2301.08243, but with
an exact share. Several scales: coarse blocks first and finer ones between them, so that each stage of a pyramid has cells to fill in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views.streams import Streams

MaskKind = Literal["random", "block", "hierarchical"]


@dataclass(frozen=True)
class PatchMask:
    """Patches of each sample that are seen, and others that are asked for.

    Args:
        visible: (B, N_visible) indices of the patches that the encoder sees, ascending.
        hidden: (B, N_hidden) indices of the patches that are predicted, ascending.
    """

    visible: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Masking:
    """How cells are hidden; every sample loses the same number of them.

    Args:
        ratio: Share hidden, between 0 and 1; at least one cell stays on either side.
        kind: `random`: single cells; `block`: boxes of cells, which may overlap; `hierarchical`: an equal share at each of several scales.
        side: Cells along each side of a box, on average, or of a block of the coarsest scale.

    Raises:
        ConfigError: A value out of range.
    """

    ratio: float = 0.75
    kind: MaskKind = "random"
    side: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask_ratio must lie between 0 and 1, got {self.ratio}")
        if self.side < 1:
            raise ConfigError(f"side must be at least 1 cell, got {self.side}")

    def hidden(self, grid: Sequence[int], *, streams: Streams, device: torch.device | None = None) -> Tensor:
        """(B, *grid) bool, True where a cell is hidden.

        Args:
            grid: Cells along each axis.
            streams: Randomness of each sample, on the CPU so that masks are equal on every device.
            device: Where the mask is wanted.

        Raises:
            ConfigError: Fewer than two cells.
        """
        cells = math.prod(grid)
        if cells < 2:
            raise ConfigError(f"masking needs at least 2 patches a sample, found {cells}; use a larger crop or a smaller patch")
        count = min(max(round(cells * self.ratio), 1), cells - 1)
        if self.kind == "hierarchical":
            return _scales(grid, count, self.side, streams).to(device, non_blocking=True)
        rank = _boxes(grid, count, self.side, streams) if self.kind == "block" and self.side > 1 else streams.uniform(cells)
        hidden = torch.zeros_like(rank, dtype=torch.bool).scatter_(1, rank.argsort(dim=1, stable=True)[:, :count], True)
        return hidden.view(-1, *grid).to(device, non_blocking=True)

    def partition(self, grid: Sequence[int], *, streams: Streams, device: torch.device | None = None) -> PatchMask:
        """The same as indices of cells in row-major order."""
        return partition(self.hidden(grid, streams=streams), device)


def partition(hidden: Tensor, device: torch.device | None = None) -> PatchMask:
    """Hidden and visible cells as indices.

    Args:
        hidden: (B, *K) bool, on the CPU, so that counting waits for no device; every sample hides the same number of cells.
        device: Where the indices are wanted.
    """
    flat = hidden.flatten(1)
    order = flat.byte().argsort(dim=1, stable=True)
    visible = flat.shape[1] - int(flat[0].sum())
    return PatchMask(*(part.to(device, non_blocking=True) for part in (order[:, :visible], order[:, visible:])))


def _boxes(grid: Sequence[int], count: int, side: int, streams: Streams) -> Tensor:
    """(B, N) the order in which boxes that fall one after the other cover cells; what none covers comes last, at random.

    A box has sides of 1 to 2 side - 1 cells and may stick out over the edge, so that no cell is hidden more often than another. The
    number of boxes depends on the settings alone: it is about twice what covers the share on average.
    """
    cells, means = math.prod(grid), [(1 + min(2 * side - 1, size)) / 2 for size in grid]
    covers = math.prod(mean / (size + mean - 1) for size, mean in zip(grid, means, strict=True))  # share of the grid below one box
    boxes = math.ceil(2 * math.log(1 - count / cells) / math.log1p(-covers))
    drawn, rest = streams.uniform(boxes, len(grid), 2), streams.uniform(cells)
    sizes, sides = torch.tensor(grid), torch.tensor([min(2 * side - 1, size) for size in grid])
    width = 1 + (drawn[..., 0] * sides).long()
    start = (drawn[..., 1] * (sizes + width - 1)).long() - width + 1
    edges = torch.stack([start.clamp(min=0), start + width], dim=-1).tolist()  # (B, boxes, axes, 2)
    rank = boxes + rest.view(-1, *grid)
    for sample, found in zip(rank.numpy(), edges, strict=True):
        for number in range(boxes - 1, -1, -1):  # earlier boxes are painted over later ones
            sample[tuple(slice(low, high) for low, high in found[number])] = number
    flat, slope = rank.flatten(1), torch.linspace(-0.4, 0.4, cells)  # the box that is one too many is cut from either end
    return torch.where(flat < boxes, flat + (1 - 2 * streams.chance(0.5).float())[:, None] * slope, flat)


def _scales(grid: Sequence[int], count: int, side: int, streams: Streams) -> Tensor:
    """(B, *grid) bool with `count` hidden cells a sample: at each scale, whole blocks as far as their share goes, and single cells last."""
    sides = [side // 2**level for level in range(side.bit_length())]  # down to 1
    hidden = torch.zeros(len(streams), *grid, dtype=torch.bool)
    for level, width in enumerate(sides):
        blocks = [-(-size // width) for size in grid]
        owner = _owners(grid, blocks, width)
        score = streams.uniform(math.prod(blocks))
        flat = hidden.flatten(1)
        free = torch.zeros_like(score).index_add_(1, owner, (~flat).float())  # cells of each block that are visible still
        left = count * (level + 1) // len(sides) - flat.sum(dim=1, keepdim=True)
        order = score.argsort(dim=1)
        taken = free.gather(1, order).cumsum(dim=1) <= left
        chosen = torch.zeros_like(taken).scatter_(1, order, taken)
        hidden = (flat | chosen[:, owner]).view_as(hidden)
    return hidden


def _owners(grid: Sequence[int], blocks: Sequence[int], width: int) -> Tensor:
    """(N,) the block of `width` cells a side in which each cell of a grid lies; those at the end may be smaller."""
    owner = torch.zeros(*grid, dtype=torch.long)
    for axis, (size, count) in enumerate(zip(grid, blocks, strict=True)):
        along = torch.arange(size) // width
        owner = owner * count + along.view([size if other == axis else 1 for other in range(len(grid))])
    return owner.flatten()
