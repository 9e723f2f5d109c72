"""Low-rank adapters: a frozen matrix learns a difference of low rank, which is added to it for good once training has ended.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 4.1, https://arxiv.org/abs/2106.09685: W + (alpha / r) B A,
with A drawn and B zero at first, so that the network starts as it was.
"""

import math
import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder

_ORIGINAL = re.compile(r"^(?P<layer>.*)\.parametrizations\.weight\.original$")


class LowRank(nn.Module):
    """The difference of one matrix, (out, in) -> (out, in).

    Args:
        weight: The matrix that it is added to.
        rank: r, the rank of the difference.
        scale: alpha / r.
        generator: Draws A.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, *, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = scale
        self.down = nn.Parameter(torch.empty(rank, columns).uniform_(-1, 1, generator=generator) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The matrix with its difference."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(encoder: Encoder, *, rank: int, alpha: float, generator: torch.Generator) -> list[str]:
    """Give every linear layer behind the first layer of an encoder an adapter: attention and MLPs of a transformer.

    Args:
        encoder: Is changed in place; what it computes is not.
        rank: r.
        alpha: Strength of the difference; its factor is alpha / r.
        generator: Draws A.

    Returns:
        Names of the layers.

    Raises:
        ConfigError: There is no such layer.
    """
    stem = {name.rpartition(".")[0] for name in encoder.layers()[0]}
    layers = {name: part for name, part in encoder.named_modules() if isinstance(part, nn.Linear) and name not in stem}
    if not layers:
        raise ConfigError(f"{type(encoder).__name__} has no linear layers for protocol lora; take partial or llrd")
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha / rank, generator=generator))
    return list(layers)


def merged(weights: dict[str, Tensor], *, rank: int, alpha: float) -> dict[str, Tensor]:
    """Weights of a network with adapters as weights of the network without: every difference is added to its matrix."""
    plain = {}
    for name, tensor in weights.items():
        found = _ORIGINAL.match(name)
        if found:
            layer = found["layer"]
            up, down = (weights[f"{layer}.parametrizations.weight.0.{part}"] for part in ("up", "down"))
            plain[f"{layer}.weight"] = tensor + alpha / rank * (up @ down)
        elif ".parametrizations." not in name:
            plain[name] = tensor
    return plain
