"""The one interface of encoders, on which every objective and every head stands.

Shapes: images (B, C, *S), a feature map (B, D, *G) with G the grid of cells, a mask of hidden blocks (B, *K) with K the coarse grid of
blocks. A block is a box of S / K voxels; K divides S along each axis.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture


class Encoder(nn.Module, ABC):
    """Images to feature maps at one or several scales; it can be written down.

    Attributes:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: C.
        width: D, channels of the deepest feature map.
        stride: Input voxels per cell of the deepest feature map, along each axis.
    """

    spatial_dims: int
    in_channels: int
    width: int
    stride: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map of the pyramid, finest first."""
        return (self.width,)

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Input voxels per cell of each map of the pyramid, finest first."""
        return (self.stride,)

    @abstractmethod
    def architecture(self) -> Architecture:
        """What it takes to build this encoder again."""

    def layers(self) -> list[tuple[str, ...]]:
        """Names of the parameters of each layer, first to last, for what is frozen or slowed by depth.

        Here every part with weights of its own is a layer, in the order in which parts were made.
        """
        parts: dict[str, list[str]] = {}
        for name, _ in self.named_parameters():
            parts.setdefault(name.rpartition(".")[0], []).append(name)
        return [tuple(names) for names in parts.values()]

    @abstractmethod
    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """Feature maps (B, D_s, *G_s), finest first; a transformer without scales has one.

        Args:
            images: (B, C, *S).
            hidden: (B, *K) bool, True where a block is hidden: no feature depends on a voxel of a hidden block.

        Raises:
            ConfigError: A size that does not fit the encoder.
        """

    def dense(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, D, *S / stride), the deepest feature map."""
        return self.pyramid(images, hidden)[-1]

    def pooled(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, D), the mean over the cells of the deepest feature map."""
        return self.dense(images).flatten(2).mean(dim=2)


def grouped(encoder: Encoder, units: Sequence[str]) -> list[tuple[str, ...]]:
    """Names of parameters by the unit that holds them; those of none are the first layer, as a stem.

    Args:
        encoder: Whose parameters they are.
        units: Names of parts, first to last.
    """
    layers: dict[str, list[str]] = {"": [], **{unit: [] for unit in units}}
    for name, _ in encoder.named_parameters():
        layers[next((unit for unit in units if name.startswith(f"{unit}.")), "")].append(name)
    return [tuple(names) for names in layers.values() if names]


class TokenEncoder(Encoder):
    """A transformer over patches, which can skip patches altogether (what makes masked autoencoding cheap).

    Attributes:
        patch: Voxels of a patch along each axis; one token a patch, in row-major order.
    """

    patch: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, N, D) features of all patches, or (B, N_visible, D) of those in `visible` (B, N_visible) alone."""

    def pooled(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, D), the mean over patches."""
        pooled: Tensor = self(images).mean(dim=1)
        return pooled


def check_hidden(images: Tensor, hidden: Tensor) -> None:
    """Whether blocks of `hidden` (B, *K) tile images (B, C, *S).

    Raises:
        ConfigError: Another batch, another number of axes, or a grid that does not divide the images.
    """
    shape, blocks = images.shape[2:], hidden.shape[1:]
    if len(hidden) != len(images) or len(shape) != len(blocks) or any(size % count for size, count in zip(shape, blocks, strict=False)):
        raise ConfigError(f"a mask of {list(hidden.shape)} blocks does not tile images {list(images.shape)}; change the crop or the block")


def visible_cells(hidden: Tensor, grid: Sequence[int]) -> Tensor:
    """Where something is visible on a grid of cells, finer or coarser than the blocks.

    Args:
        hidden: (B, *K) bool, True where a block is hidden.
        grid: Cells along each axis.

    Returns:
        (B, 1, *grid) float32: 1 where a visible block overlaps the cell, else 0.
    """
    pool = F.adaptive_max_pool2d if len(grid) == 2 else F.adaptive_max_pool3d
    cells: Tensor = pool((~hidden)[:, None].float(), tuple(grid))
    return cells
