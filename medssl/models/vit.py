"""Vision transformer over patches, for slices and volumes.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, https://arxiv.org/abs/2010.11929; pre-norm blocks, fixed sine-cosine positions,
mean of the tokens instead of a class token, so that every token counts. Mask token: Xie et al., "SimMIM", 2021,
https://arxiv.org/abs/2111.09886. Registers: Darcet et al., 2023, https://arxiv.org/abs/2309.16588.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.blocks import Block, Mlp
from medssl.models.encoder import TokenEncoder, check_hidden, grouped, visible_cells
from medssl.models.patches import Rotation, as_map, axial_rotation, grid_of, patches_at, patchify, resized_positions, sincos_positions

Positions = Literal["sincos", "rotary", "both", "learned"]


class ViT(TokenEncoder):
    """Encoder of patches.

    Args:
        patch: Voxels of a patch along each axis; two numbers for slices, three for volumes.
        in_channels: C.
        width: D, tokens' width.
        depth: Number of blocks.
        heads: Attention heads; divides the width.
        positions: `sincos` added to the tokens, `rotary` turning queries and keys, `both`, or a `learned` table.
        position_grid: Patches along each axis for which a learned table is made; it is interpolated for others.
        mlp: `gelu`: two layers; `swiglu`: gated.
        mlp_width: Width inside the MLP; by default 4 D, or 8/3 D with a gate.
        layer_scale: First value of a learned factor per channel on each update; None for none.
        drop_path: Share of samples without an update in training, rising from 0 at the first block to this at the last; from torch's
            global generator.
        registers: Learned tokens without a patch, left out of the features.
        mask_token: A learned token stands for hidden patches; without it zeros do.
        qkv_bias: A bias for query, key and value.
        norm_eps: What layer normalisation adds to the variance.
        checkpointing: Compute activations twice instead of keeping them; not part of the architecture.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        patch: Sequence[int],
        *,
        in_channels: int = 1,
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
        positions: Positions = "sincos",
        position_grid: Sequence[int] | None = None,
        mlp: Mlp = "gelu",
        mlp_width: int | None = None,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        registers: int = 0,
        mask_token: bool = False,
        qkv_bias: bool = True,
        norm_eps: float = 1e-5,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(patch, width, heads, positions, position_grid, drop_path)
        self.patch = self.stride = tuple(patch)
        self.spatial_dims = len(self.patch)
        self.in_channels, self.width, self.depth, self.heads = in_channels, width, depth, heads
        self.positions, self.position_grid, self.checkpointing = positions, position_grid and tuple(position_grid), checkpointing
        self.block_options = {"mlp": mlp, "mlp_width": mlp_width, "layer_scale": layer_scale, "qkv_bias": qkv_bias, "norm_eps": norm_eps}
        self.drop_path = drop_path
        self.embed = nn.Linear(in_channels * math.prod(self.patch), width)
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp=mlp, mlp_width=mlp_width, qkv_bias=qkv_bias, norm_eps=norm_eps, layer_scale=layer_scale, drop_path=rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.registers = _learned(registers, width) if registers else None
        self.mask_token = _learned(1, width) if mask_token else None
        self.position_table = _learned(math.prod(position_grid), width) if position_grid is not None else None

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        options = {
            "positions": self.positions,
            "position_grid": self.position_grid and list(self.position_grid),
            **self.block_options,
            "drop_path": self.drop_path,
            "registers": 0 if self.registers is None else len(self.registers),
            "mask_token": self.mask_token is not None,
        }
        sizes = {"in_channels": self.in_channels, "width": self.width, "depth": self.depth, "heads": self.heads}
        return Architecture.of(self, patch=list(self.patch), **sizes, **Architecture.changed(ViT, **options))

    def layers(self) -> list[tuple[str, ...]]:
        """What makes tokens, then the blocks, the last one with the normalisation after it."""
        *stem_and_blocks, last = grouped(self, [*(f"blocks.{number}" for number in range(self.depth)), "norm"])
        return [*stem_and_blocks[:-1], (*stem_and_blocks[-1], *last)]

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, N, D) normalised features of all patches, or of the visible ones."""
        return self.encode(self.tokens(images, visible), grid_of(images.shape[2:], self.patch), visible)

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """(B, C, *S) -> one map (B, D, *S / patch).

        Args:
            images: (B, C, *S).
            hidden: (B, *K) bool; the mask token, or zeros, stand for the patches of hidden blocks.

        Raises:
            ConfigError: A block that is no multiple of the patch, or a crop that is none.
        """
        grid = grid_of(images.shape[2:], self.patch)
        if hidden is None:
            return [as_map(self(images), grid)]
        check_hidden(images, hidden)
        if any(cells % blocks for cells, blocks in zip(grid, hidden.shape[1:], strict=True)):
            raise ConfigError(f"a mask of {list(hidden.shape[1:])} blocks is finer than {list(grid)} patches; take a multiple of the patch")
        seen = visible_cells(hidden, grid).flatten(2).transpose(1, 2).bool()  # (B, N, 1)
        return [as_map(self.encode(self.tokens(images, seen=seen), grid), grid)]

    def tokens(self, images: Tensor, visible: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """Embedded patches with positions.

        Args:
            images: (B, C, *S).
            visible: (B, N_visible), the patches to embed; None for all.
            seen: (B, N, 1) bool, False where the mask token stands for the patch; None for none.

        Returns:
            (B, N, D) or (B, N_visible, D).
        """
        patches = patchify(images, self.patch) if visible is None else patches_at(images, self.patch, visible)
        tokens: Tensor = self.embed(patches)
        if seen is not None:
            tokens = torch.where(seen, tokens, 0.0 if self.mask_token is None else self.mask_token.to(tokens))
        positions = self.added_positions(grid_of(images.shape[2:], self.patch))
        if positions is None:
            return tokens
        positions = positions.to(patches)
        return tokens + (positions if visible is None else positions[visible])

    def added_positions(self, grid: Sequence[int]) -> Tensor | None:
        """(N, D) positions to add to the tokens, or None where rotary positions do all."""
        if self.position_table is not None and self.position_grid is not None:
            return resized_positions(self.position_table, self.position_grid, grid)
        return None if self.positions == "rotary" else sincos_positions(grid, self.width, self.embed.weight.device)

    def rotation(self, grid: Sequence[int], visible: Tensor | None = None) -> Rotation | None:
        """Turns of queries and keys, or None without rotary positions."""
        if self.positions not in ("rotary", "both"):
            return None
        rotation = axial_rotation(grid, self.width // self.heads, device=self.embed.weight.device)
        rotation = rotation if visible is None else rotation.at(visible)
        return rotation if self.registers is None else rotation.after(len(self.registers))

    def encode(self, tokens: Tensor, grid: Sequence[int], visible: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) of the patches of a grid, or of the visible ones, through all blocks, normalised."""
        rotation, count = self.rotation(grid, visible), 0
        if self.registers is not None:
            count = len(self.registers)
            tokens = torch.cat([self.registers.to(tokens).expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            saving = self.checkpointing and self.training and torch.is_grad_enabled()
            tokens = checkpoint(block, tokens, rotation, use_reentrant=False) if saving else block(tokens, rotation)
        features: Tensor = self.norm(tokens[:, count:])
        return features


def take(sequence: Tensor, indices: Tensor) -> Tensor:
    """(B, N, D) at (B, M) indices -> (B, M, D)."""
    return sequence[torch.arange(len(sequence), device=sequence.device)[:, None], indices]  # whose gradient sorts rows, not all values


def _learned(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, width) * 0.02)


def _check(
    patch: Sequence[int], width: int, heads: int, positions: Positions, position_grid: Sequence[int] | None, drop_path: float
) -> None:
    if len(patch) not in (2, 3) or min(patch) < 1:
        raise ConfigError(f"patch takes 2 or 3 positive numbers, got {list(patch)}")
    if heads < 1 or width % heads:
        raise ConfigError(f"heads must divide width, got width {width} and heads {heads}")
    if (positions == "learned") != (position_grid is not None):
        raise ConfigError("learned positions need position_grid (patches along each axis), and no others take it")
    if position_grid is not None and len(position_grid) != len(patch):
        raise ConfigError(f"position_grid needs one number per axis of the patch {list(patch)}, got {list(position_grid)}")
    if positions in ("rotary", "both") and width // heads < 2 * len(patch):
        raise ConfigError(f"rotary positions need at least {2 * len(patch)} channels a head, got {width // heads}; take fewer heads")
    if not 0 <= drop_path < 1:
        raise ConfigError(f"drop_path must lie in [0, 1), got {drop_path}")
