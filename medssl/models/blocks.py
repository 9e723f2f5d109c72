"""Transformer blocks: attention and an MLP on normalised tokens, with the refinements that larger models need.

Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929; LayerScale: Touvron et al., 2021, https://arxiv.org/abs/2103.17239; stochastic
depth: Huang et al., 2016, https://arxiv.org/abs/1603.09382; SwiGLU: Shazeer, 2020, https://arxiv.org/abs/2002.05202; attention across: Fu
et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024, https://arxiv.org/abs/2401.14391.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from medssl.models.patches import Rotation, rotate

Mlp = Literal["gelu", "swiglu"]


class SwiGLU(nn.Module):
    """A gated MLP, (..., D) -> (..., D).

    Args:
        width: D.
        hidden: Width between its layers.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The value, let through where the gate is open."""
        updated: Tensor = self.out(F.silu(self.gate(tokens)) * self.value(tokens))
        return updated


class Branch(nn.Module):
    """What happens to an update before it is added: scaled by channel, and dropped for some samples in training.

    Args:
        width: D.
        layer_scale: First value of a learned factor per channel; None for none.
        drop_path: Share of samples without the update in training, 0 to 1; drawn from torch's global generator.
    """

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, update: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        if self.scale is not None:
            update = update * self.scale
        if not self.training or self.drop_path == 0:
            return update
        kept = torch.rand(len(update), 1, 1, device=update.device) >= self.drop_path
        return update * kept / (1 - self.drop_path)


class Block(nn.Module):
    """Self-attention and an MLP, each on normalised tokens and added back.

    Args:
        width: D.
        heads: Attention heads; divides D.
        mlp: `gelu`: two layers; `swiglu`: gated.
        mlp_width: Width inside the MLP; by default 4 D, or 8/3 D with a gate (as many parameters).
        qkv_bias: A bias for query, key and value.
        norm_eps: What layer normalisation adds to the variance.
        layer_scale: First value of a learned factor per channel on each update; None for none.
        drop_path: Share of samples without an update in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp: Mlp = "gelu",
        mlp_width: int | None = None,
        qkv_bias: bool = True,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp: nn.Module
        if mlp == "gelu":
            inside = mlp_width or 4 * width
            self.mlp = nn.Sequential(nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, width))
        else:
            self.mlp = SwiGLU(width, mlp_width or round(8 * width / 3))
        self.attention_branch = Branch(width, layer_scale, drop_path)
        self.mlp_branch = Branch(width, layer_scale, drop_path)

    def forward(self, tokens: Tensor, rotation: Rotation | None = None, last: int | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D), or (B, last, D) of the last tokens alone.

        Args:
            tokens: (B, N, D).
            rotation: Of queries and keys by their position; None for none.
            last: How many tokens at the end are asked for, without the work for the others; without rotation alone.
        """
        if last is not None:
            return self._last(tokens, last)
        return self._updated(tokens, self.attend(self.norm_attention(tokens), rotation))

    def _last(self, tokens: Tensor, count: int) -> Tensor:
        normalised, width = self.norm_attention(tokens), tokens.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(normalised[:, -count:], weight[:width], None if bias is None else bias[:width])
        key_value = F.linear(normalised, weight[width:], None if bias is None else bias[width:])
        attended: Tensor = self.project(attention(query, key_value, self.heads))
        return self._updated(tokens[:, -count:], attended)

    def _updated(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + self.attention_branch(attended)
        updated: Tensor = tokens + self.mlp_branch(self.mlp(self.norm_mlp(tokens)))
        return updated

    def attend(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Scaled dot-product attention over all tokens, queries and keys rotated by their position where it is given."""
        query, key, value = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        attended: Tensor = self.project(rearrange(attended_values(query, key, value), "b h n d -> b n (h d)"))
        return attended


class CrossBlock(nn.Module):
    """Attention of queries to what is known, and an MLP; queries do not see each other (Fu et al., 2024).

    Args:
        width: D.
        heads: Attention heads; divides D.
        mlp_width: Width inside the MLP; by default 4 D.
    """

    def __init__(self, width: int, heads: int, *, mlp_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_known, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.project = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        inside = mlp_width or 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, width))

    def forward(self, queries: Tensor, known: Tensor) -> Tensor:
        """(B, M, D) and (B, N, D) -> (B, M, D)."""
        attended = attention(self.query(self.norm_query(queries)), self.key_value(self.norm_known(known)), self.heads)
        queries = queries + self.project(attended)
        updated: Tensor = queries + self.mlp(self.norm_mlp(queries))
        return updated


def attention(query: Tensor, key_value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of queries (B, M, D) to keys and values (B, N, 2 D) -> (B, M, D)."""
    query = rearrange(query, "b n (h d) -> b h n d", h=heads)
    key, value = rearrange(key_value, "b n (two h d) -> two b h n d", two=2, h=heads)
    return rearrange(attended_values(query, key, value), "b h n d -> b n (h d)")


def attended_values(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention of queries (B, H, M, D) to keys and values (B, H, N, D) -> (B, H, M, D).

    On a processor in float32, also under autocast: torch's kernel for bfloat16 takes 1.2 to 20 times as long there (216 to 16 tokens).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float())
