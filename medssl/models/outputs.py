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

    @property
    def softmax(self) -> bool:
        """Whether exactly one of several channels holds, so that their probabilities sum to 1."""
        return bool(self.names) and self.exclusive

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, channels, *S) logits -> probabilities, float32."""
        return logits.float().softmax(dim=1) if self.softmax else logits.float().sigmoid()

    def suspicion(self, probabilities: Tensor) -> Tensor:
        """(channels, *S) -> (*S), that of any positive class: the sum of exclusive ones, the highest of others."""
        if not self.names:
            return probabilities[0]
        found = probabilities[self.positives]
        return found.sum(dim=0).clamp(max=1) if self.exclusive else found.amax(dim=0)

    @property
    def positives(self) -> list[int]:
        """The channels of the positive classes."""
        return [self.names.index(name) + self.background for name in self.positive]

    def of_classes(self, channels: Tensor) -> Tensor:
        """(channels, *S) -> (classes, *S), without the background; none where no classes are named."""
        return channels[self.channels - len(self.names) :]

    def of_scan(self, channels: Tensor) -> Tensor:
        """(channels, N) of slices -> (channels,) of the scan: at the slice of highest suspicion, the highest of any where none excludes."""
        return channels[:, int(self.suspicion(channels).argmax())] if self.softmax else channels.amax(dim=1)

    def likeliest(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the likeliest positive class of every voxel, and of the likeliest of what is not positive.

        Args:
            probabilities: (channels, *S) of a segmenter of named classes.

        Returns:
            Twice (*S): 1 for the first class, 0 for the background.
        """
        others = [channel for channel in range(self.channels) if channel not in self.positives]
        first, second = (torch.tensor(picks)[probabilities[picks].argmax(dim=0)] for picks in (self.positives, others))
        return first, second

    def spelled(self, values: Sequence[float]) -> dict[str, float]:
        """Values of the classes by name."""
        return dict(zip(self.names, map(float, values), strict=True))
