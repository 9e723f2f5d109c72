"""What the output channels of a lesion network mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """The channels of a network, in order.

    Args:
        names: Of the classes; empty for one logit of lesion against none.
        positive: Those that count as positive.
        exclusive: Exactly one of the channels holds (softmax), instead of each on its own (sigmoid).
        background: The first channel is none of the classes, as in segmentation.
        mask_values: What masks of the truth hold where each class is; empty for 1, 2, 3, ...
    """

    names: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    exclusive: bool = True
    background: bool = False
    mask_values: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """How many there are."""
        return max(len(self.names), 1) + (self.background and bool(self.names))

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, channels, *S) logits -> probabilities, float32."""
        return logits.float().softmax(dim=1) if self.names and self.exclusive else logits.float().sigmoid()

    def suspicion(self, probabilities: Tensor) -> Tensor:
        """(channels, *S) -> (*S), that of any positive class: the sum of exclusive ones, the highest of others."""
        if not self.names:
            return probabilities[0]
        found = probabilities[[self._channel(name) for name in self.positive]]
        return found.sum(dim=0).clamp(max=1) if self.exclusive else found.amax(dim=0)

    def _channel(self, name: str) -> int:
        return self.names.index(name) + self.background

    def of_classes(self, channels: Tensor) -> Tensor:
        """(channels, *S) -> (classes, *S), without the background; none where no classes are named."""
        return channels[self.channels - len(self.names) :]

    def likeliest(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the likeliest positive class of every voxel, and of the likeliest of what is not positive.

        Args:
            probabilities: (channels, *S) of a segmenter of named classes.

        Returns:
            Twice (*S): 1 for the first class, 0 for the background.
        """
        positive = [self._channel(name) for name in self.positive]
        others = [channel for channel in range(self.channels) if channel not in positive]
        first, second = (torch.tensor(picks)[probabilities[picks].argmax(dim=0)] for picks in (positive, others))
        return first, second

    def spelled(self, values: Sequence[float]) -> dict[str, float]:
        """Values of the classes by name."""
        return dict(zip(self.names, map(float, values), strict=True))
