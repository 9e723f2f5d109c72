"""Vision transformer over patches, for slices and volumes.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, https://arxiv.org/abs/2010.11929; pre-norm blocks, fixed sine-cosine positions,
mean of the tokens instead of a class token, so that every token count works.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.encoder import TokenEncoder
from medssl.models.patches import grid_of, patchify, sincos_positions


class Block(nn.Module):
    """Self-attention and an MLP, each on normalised tokens and added back.

    Args:
        width: D.
        heads: Attention heads; divides D.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        tokens = tokens + self.attend(self.norm_attention(tokens))
        updated: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return updated

    def attend(self, tokens: Tensor) -> Tensor:
        """Scaled dot-product attention over all tokens."""
        query, key, value = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        attended: Tensor = self.project(rearrange(F.scaled_dot_product_attention(query, key, value), "b h n d -> b n (h d)"))
        return attended


class ViT(TokenEncoder):
    """Encoder of patches.

    Args:
        patch: Voxels of a patch along each axis; two numbers for slices, three for volumes.
        in_channels: C.
        width: D, tokens' width.
        depth: Number of blocks.
        heads: Attention heads; divides the width.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(self, patch: Sequence[int], *, in_channels: int = 1, width: int = 192, depth: int = 6, heads: int = 6) -> None:
        super().__init__()
        if len(patch) not in (2, 3) or min(patch) < 1:
            raise ConfigError(f"patch takes 2 or 3 positive numbers, got {list(patch)}")
        if heads < 1 or width % heads:
            raise ConfigError(f"heads must divide width, got width {width} and heads {heads}")
        self.patch = self.stride = tuple(patch)
        self.spatial_dims = len(patch)
        self.in_channels, self.width, self.depth, self.heads = in_channels, width, depth, heads
        patch_values = in_channels
        for size in patch:
            patch_values *= size
        self.embed = nn.Linear(patch_values, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(
            self, patch=list(self.patch), in_channels=self.in_channels, width=self.width, depth=self.depth, heads=self.heads
        )

    def tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, N, D) embedded patches with positions; only the patches in `visible` (B, N_visible) where it is given."""
        patches = patchify(images, self.patch)
        positions = sincos_positions(grid_of(images.shape[2:], self.patch), self.width).to(patches)
        if visible is not None:
            patches, positions = take(patches, visible), positions[visible]
        tokens: Tensor = self.embed(patches) + positions
        return tokens

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, N, D) normalised features of all patches, or of the visible ones."""
        tokens = self.tokens(images, visible)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens)
        return features

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """(B, C, *S) -> one map (B, D, *S / patch)."""
        grid = grid_of(images.shape[2:], self.patch)
        del hidden
        return [self(images).transpose(1, 2).unflatten(2, grid)]


def take(sequence: Tensor, indices: Tensor) -> Tensor:
    """(B, N, D) at (B, M) indices -> (B, M, D)."""
    return sequence.gather(1, indices[:, :, None].expand(-1, -1, sequence.shape[2]))
