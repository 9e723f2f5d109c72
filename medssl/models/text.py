"""A small transformer over the bytes of a sentence: no vocabulary, no language, no weights to fetch.

Bytes instead of words as in ByT5 (Xue et al., 2021, https://arxiv.org/abs/2105.13626); several bytes a token as in CANINE (Clark et al.,
2021, https://arxiv.org/abs/2103.06874).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.patches import sincos_positions

_BYTES = 256


class TextTower(nn.Module):
    """Sentences to features; used in pretraining only.

    Args:
        width: D, of the tokens and the features.
        depth: Blocks.
        heads: Attention heads; divides the width.
        patch: Bytes joined in a token.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(self, *, width: int = 128, depth: int = 2, heads: int = 4, patch: int = 1) -> None:
        super().__init__()
        if min(width, depth, heads, patch) < 1 or width % heads:
            raise ConfigError(f"width {width}, depth {depth}, heads {heads} and patch {patch} must be >= 1, and heads divide the width")
        self.width, self.patch = width, patch
        self.embed = nn.Embedding(_BYTES, width, padding_idx=0)
        self.join = nn.Linear(patch * width, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor) -> Tensor:
        """(B, L) uint8, 0 behind the end of a sentence -> (B, D), the mean over tokens; of an empty sentence that of one empty token."""
        text = F.pad(text, (0, -text.shape[1] % self.patch)).long()
        written = rearrange(text, "b (n p) -> b n p", p=self.patch).ne(0).any(dim=2)
        written[:, 0] = True  # attention needs something to look at
        tokens = self.join(rearrange(self.embed(text), "b (n p) d -> b n (p d)", p=self.patch))
        tokens = tokens + sincos_positions((tokens.shape[1],), self.width, tokens.device).to(tokens)
        for block in self.blocks:
            tokens = block(tokens, src_key_padding_mask=~written)
        weight = written[:, :, None].to(tokens)
        pooled: Tensor = (self.norm(tokens) * weight).sum(dim=1) / weight.sum(dim=1)
        return pooled


def sentences(text: Tensor) -> Tensor:
    """(B, L) bytes -> (B,) a number for each different sentence."""
    numbers: Tensor = torch.unique(text, dim=0, return_inverse=True)[1]
    return numbers
