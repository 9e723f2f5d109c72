"""The light decoder that reconstructs hidden patches; used in pretraining only.

Self-attention over visible and asked-for patches: He et al., 2021, https://arxiv.org/abs/2111.06377. Cross-attention from asked-for to
visible patches alone, which is cheaper: Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024,
https://arxiv.org/abs/2401.14391.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.blocks import Block, CrossBlock
from medssl.models.patches import sincos_positions

DecoderKind = Literal["self", "cross"]


class PatchDecoder(nn.Module):
    """Predicts patches from visible features.

    Args:
        encoder_width: D of the encoder.
        patch_values: Values of one patch, P * C.
        width: Width of the decoder's tokens.
        depth: Number of blocks, at least 1.
        heads: Attention heads.
        mlp_width: Width inside the MLPs; by default 4 times the width.
        kind: `self`: all tokens attend to each other; `cross`: asked-for ones to visible ones.

    Raises:
        ConfigError: A number out of range.
    """

    def __init__(
        self,
        encoder_width: int,
        patch_values: int,
        *,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        mlp_width: int | None = None,
        kind: DecoderKind = "self",
    ) -> None:
        super().__init__()
        if min(width, depth, heads) < 1 or width % heads:
            raise ConfigError(f"decoder: width {width}, depth {depth} and heads {heads} must be >= 1, and heads divide the width")
        self.kind, self.width = kind, width
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        block = CrossBlock if kind == "cross" else Block
        self.blocks = nn.ModuleList(block(width, heads, mlp_width=mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, patch_values)

    def forward(self, features: Tensor, visible: Tensor, asked: Tensor, grid: Sequence[int]) -> Tensor:
        """Features of visible patches -> predictions for others.

        Args:
            features: (B, N_visible, D).
            visible: (B, N_visible) their places.
            asked: (B, M) places to predict.
            grid: Patches along each axis.

        Returns:
            (B, M, P * C).
        """
        positions = sincos_positions(grid, self.width, features.device).to(features)
        known = self.embed(features) + positions[visible]
        queries = (self.mask_token + positions[asked]).to(known)
        prediction: Tensor = self.predict(self.norm(self._attended(known, queries)))
        return prediction

    def _attended(self, known: Tensor, queries: Tensor) -> Tensor:
        """(B, N_visible, W) and (B, M, W) -> (B, M, W)."""
        if self.kind == "cross":
            for block in self.blocks:
                queries = block(queries, known)
            return queries
        tokens, count = torch.cat([known, queries], dim=1), queries.shape[1]
        *blocks, final = cast(Sequence[Block], self.blocks)
        for block in blocks:
            tokens = block(tokens)
        attended: Tensor = final(tokens, last=count)  # what the last block makes of visible tokens is thrown away
        return attended
