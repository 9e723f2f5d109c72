"""What a pretraining method is: an encoder and a loss over a batch of crops."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medssl.models.encoder import Encoder


@dataclass(frozen=True)
class Loss:
    """A loss to minimise.

    Args:
        total: Scalar with gradient.
        terms: Named scalars for the logs.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A self-supervised method.

    Subclasses hold their own extra parts (decoder, projector) and draw all randomness from the generator they are given.

    Args:
        encoder: What pretraining is for; ends in the bundle.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def forward(self, images: Tensor, generator: torch.Generator) -> Loss:
        """The loss on crops (B, C, *S); the generator is on the CPU."""

    def picture(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """Images (V, B, C, *S) of what the method does with these crops, or None where there is nothing to see."""
        del images, generator
        return None
