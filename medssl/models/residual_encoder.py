"""The residual encoder of nnU-Net, which can leave hidden blocks out.

Isensee et al., "nnU-Net Revisited", 2024, https://arxiv.org/abs/2404.09556; masked as in SparK (Tian et al., 2023,
https://arxiv.org/abs/2301.03580), with the mask given to every layer, so that two masks can be in flight at once.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.convolutions import SLOPE, ConvNorm, ResidualBlock
from medssl.models.encoder import Encoder, check_hidden, grouped, visible_cells


class ResidualEncoder(Encoder):
    """Stages of residual blocks with instance normalisation, each on a coarser grid than the one before.

    The defaults are the six stages of ResEnc-L.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: C.
        stage_widths: Channels of each stage, finest first.
        stage_blocks: Residual blocks of each stage.
        stage_strides: Stride of each stage along each axis; by default 1, then 2.
        stage_kernels: Odd width of the convolutions of each stage along each axis; by default 3. Thick slices
            take 1 across slices at first.
        checkpointing: Compute activations of residual blocks twice instead of keeping them; not part of the architecture.

    Raises:
        ConfigError: Lists that do not fit each other, or an even kernel.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 3,
        in_channels: int = 1,
        stage_widths: Sequence[int] = (32, 64, 128, 256, 320, 320),
        stage_blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
        stage_strides: Sequence[Sequence[int]] | None = None,
        stage_kernels: Sequence[Sequence[int]] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.checkpointing = spatial_dims, in_channels, checkpointing
        self.stage_blocks = tuple(stage_blocks)
        same = (1,) * spatial_dims
        self.stage_strides = _per_stage(stage_strides, [same, *[(2,) * spatial_dims] * (len(stage_widths) - 1)])
        self.stage_kernels = _per_stage(stage_kernels, [(3,) * spatial_dims] * len(stage_widths))
        self._widths = tuple(stage_widths)
        _check(spatial_dims, self._widths, self.stage_blocks, self.stage_strides, self.stage_kernels)
        self.width, self.stride = self._widths[-1], self.strides[-1]
        self.stem = ConvNorm(in_channels, self._widths[0], self.stage_kernels[0], same)
        before = (self._widths[0], *self._widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(width if n else before[stage], width, self.stage_kernels[stage], same if n else self.stage_strides[stage])
                for n in range(self.stage_blocks[stage])
            )
            for stage, width in enumerate(self._widths)
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, finest first."""
        return self._widths

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Input voxels per cell of each stage, finest first."""
        totals = [(1,) * self.spatial_dims]
        for stride in self.stage_strides:
            totals.append(tuple(total * step for total, step in zip(totals[-1], stride, strict=True)))
        return tuple(totals[1:])

    def architecture(self) -> Architecture:
        """What it takes to build this encoder again."""
        return Architecture.of(
            self,
            spatial_dims=self.spatial_dims,
            in_channels=self.in_channels,
            stage_widths=list(self._widths),
            stage_blocks=list(self.stage_blocks),
            stage_strides=[list(stride) for stride in self.stage_strides],
            stage_kernels=[list(kernel) for kernel in self.stage_kernels],
        )

    def layers(self) -> list[tuple[str, ...]]:
        """The stem, then every residual block."""
        return grouped(self, [f"stages.{stage}.{n}" for stage, blocks in enumerate(self.stage_blocks) for n in range(blocks)])

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """Feature maps of all stages, finest first; zero in cells whose every block is hidden.

        Args:
            images: (B, C, *S), each S a multiple of the stride.
            hidden: (B, *K) bool. A cell that overlaps a visible block counts as visible, at every scale.

        Raises:
            ConfigError: Images that are no multiple of the stride or leave one cell, which normalisation would make constant.
        """
        self._check_size(images)
        features, visible = images, None
        if hidden is not None:
            check_hidden(images, hidden)
            visible = visible_cells(hidden, images.shape[2:])
            features = images * visible.to(images)
        features = F.leaky_relu(self.stem(features, visible), SLOPE)
        maps = []
        for blocks, stride in zip(self.stages, self.strides, strict=True):
            if hidden is not None:
                visible = visible_cells(hidden, [size // step for size, step in zip(images.shape[2:], stride, strict=True)])
            for block in cast(nn.ModuleList, blocks):
                saving = self.checkpointing and self.training and torch.is_grad_enabled()
                features = checkpoint(block, features, visible, use_reentrant=False) if saving else block(features, visible)
            maps.append(features)
        return maps

    def _check_size(self, images: Tensor) -> None:
        shape = tuple(images.shape[2:])
        if len(shape) != self.spatial_dims or any(size % step for size, step in zip(shape, self.stride, strict=True)):
            raise ConfigError(f"crop {list(shape)} is not a multiple of the encoder's stride {list(self.stride)}; change one of them")
        if shape == self.stride:
            raise ConfigError(f"crop {list(shape)} is one cell of the deepest stage, which normalisation makes constant; enlarge it")


def _per_stage(values: Sequence[Sequence[int]] | None, default: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value) for value in (default if values is None else values))


def _check(
    spatial_dims: int,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    kernels: tuple[tuple[int, ...], ...],
) -> None:
    if spatial_dims not in (2, 3) or not widths or min(*widths, *blocks, 1) < 1:
        raise ConfigError(f"stages need 2 or 3 axes and positive widths and blocks, got {spatial_dims}, {list(widths)}, {list(blocks)}")
    if {len(blocks), len(strides), len(kernels)} != {len(widths)}:
        raise ConfigError(f"stage_blocks, stage_strides and stage_kernels need one entry for each of the {len(widths)} stages")
    if any(len(entry) != spatial_dims or min(entry) < 1 for entry in (*strides, *kernels)):
        raise ConfigError(f"each entry of stage_strides and stage_kernels takes {spatial_dims} positive numbers")
    if any(width % 2 == 0 for kernel in kernels for width in kernel):
        raise ConfigError(f"kernels must be odd, got {[list(kernel) for kernel in kernels]}")
