"""What a pretraining method is: an encoder and a loss over a batch of crops."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from medssl.models.encoder import Encoder
from medssl.views.batch import Batch, Positives


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

    Subclasses hold their own extra parts (decoder, projector, teacher) and draw all randomness from the streams of the batch.

    Args:
        encoder: What pretraining is for; ends in the bundle.

    Attributes:
        positives: Which crops the method wants together.
        text_bytes: How much of the sentence on a scan it reads, 0 for nothing.
        compares: What it tells apart within a batch: samples, those of different patients, or nothing.
    """

    positives: Positives = "same"
    text_bytes: int = 0
    compares: Literal["nothing", "samples", "patients"] = "nothing"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The loss on a batch of crops."""

    def after_step(self, progress: float) -> None:
        """What happens behind an optimiser step, such as moving a teacher on.

        Args:
            progress: Share of the run that is done, 0 to 1.
        """
        del progress

    def picture(self, batch: Batch) -> Tensor | None:
        """Images (P, B, C, *S) of what the method does with these crops, or None where there is nothing to see."""
        del batch
        return None
