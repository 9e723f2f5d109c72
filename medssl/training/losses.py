"""What lesion networks minimise: cross entropy, focal, Dice and Tversky losses, for one logit, exclusive classes or several labels.

Dice: Milletari et al., "V-Net", 2016, section 3, https://arxiv.org/abs/1606.04797, with the sum instead of the sum of squares below.
Focal: Lin et al., 2017, equation 4, https://arxiv.org/abs/1708.02002. Tversky: Salehi et al., 2017, equation 3,
https://arxiv.org/abs/1706.05721; its power: Abraham and Khan, 2018, https://arxiv.org/abs/1810.07842. Deep supervision: Isensee et al.,
2021 (nnU-Net), https://doi.org/10.1038/s41592-020-01008-z. All sums run over the whole batch of all processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.objectives.processes import mean_of, summed


@dataclass(frozen=True)
class Truth:
    """What a batch should be.

    Args:
        share: (B, C, *S) of 0 to 1: of each channel, or of lesion where there is one channel.
        known: (B,) 1 where the answer is known, else 0.
        exclusive: The channels exclude each other (softmax); else each is on its own (sigmoid).
        weights: (2, C): how much a channel that does not hold counts, and how much one that does; None for all alike.
    """

    share: Tensor
    known: Tensor
    exclusive: bool = False
    weights: Tensor | None = None

    @classmethod
    def of_mask(cls, numbers: Tensor, channels: int, *, weights: Tensor | None = None) -> "Truth":
        """The truth of masks (B, 1, *S) with the number of the class of each voxel, 0 for background; 0 and 1 for one channel."""
        known = torch.ones(len(numbers), device=numbers.device)
        if channels == 1:
            return cls(numbers.float(), known, weights=weights)
        return cls(one_hot(numbers[:, 0].long(), channels), known, exclusive=True, weights=weights)

    @classmethod
    def of_labels(cls, label: Tensor, channels: int, *, weights: Tensor | None = None) -> "Truth":
        """The truth of labels: (B,) 0 and 1 for one channel or the index of the class, or (B, C) of 0 and 1; -1 where not known."""
        known = (label if label.ndim == 1 else label[:, 0]) >= 0
        label = label.clamp(min=0)
        if channels == 1 or label.ndim == 2:
            return cls(label.view(len(label), -1).float(), known.float(), weights=weights)
        return cls(one_hot(label.long(), channels), known.float(), exclusive=True, weights=weights)

    def coarser(self, size: Sequence[int]) -> "Truth":
        """The truth on a grid of another size, each cell from the nearest voxel."""
        if tuple(size) == tuple(self.share.shape[2:]):
            return self
        return Truth(F.interpolate(self.share, size=tuple(size), mode="nearest"), self.known, self.exclusive, self.weights)


def one_hot(numbers: Tensor, channels: int) -> Tensor:
    """(B, *S) of 0 to C - 1 -> (B, C, *S) float of 0 and 1."""
    return F.one_hot(numbers, channels).movedim(-1, 1).float()


class Loss(ABC):
    """A loss of logits, full resolution first where a network gives several scales.

    Args:
        scale_weight: Weight of each scale of a deeply supervised network beside that of the next finer one.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(self, *, scale_weight: float = 0.5) -> None:
        if scale_weight < 0:
            raise ConfigError(f"scale_weight must be >= 0, got {scale_weight}")
        self.scale_weight = scale_weight

    def __call__(self, logits: Tensor | Sequence[Tensor], truth: Truth) -> Tensor:
        """The loss of logits (B, C, *S), or its mean over scales, weighted."""
        if isinstance(logits, Tensor):
            return self.at_scale(logits, truth)
        weights = [self.scale_weight**level for level in range(len(logits))]
        losses = [weight * self.at_scale(one, truth.coarser(one.shape[2:])) for weight, one in zip(weights, logits, strict=True)]
        return torch.stack(losses).sum() / sum(weights)

    @abstractmethod
    def at_scale(self, logits: Tensor, truth: Truth) -> Tensor:
        """The loss of logits (B, C, *S) against the truth on their grid."""


Weights = Literal["equal", "balanced"] | tuple[float, ...]


class CrossEntropy(Loss):
    """Cross entropy over all samples whose answer is known, or the focal loss, which counts what is easy for less.

    Args:
        gamma: Focusing of the focal loss; 0 for cross entropy.
        smoothing: Share of the truth that is spread evenly over classes, 0 to below 1.
        weights: `equal`; `balanced`: classes count by the inverse of how often they are in training; or a weight for each channel,
            the first of two for "none" where there is one channel.
        scale_weight: See `Loss`.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(self, *, gamma: float = 0.0, smoothing: float = 0.0, weights: Weights = "equal", scale_weight: float = 0.5) -> None:
        super().__init__(scale_weight=scale_weight)
        if gamma < 0 or not 0 <= smoothing < 1:
            raise ConfigError(f"gamma must be >= 0 and smoothing in [0, 1), got {gamma} and {smoothing}")
        self.gamma, self.smoothing, self.weights = gamma, smoothing, weights

    def at_scale(self, logits: Tensor, truth: Truth) -> Tensor:
        """The weighted mean over all that is known."""
        losses, share = self._each(logits.float(), truth), truth.share
        counted = truth.known.view(-1, *[1] * (losses.ndim - 1)).expand_as(losses)
        if truth.weights is not None:
            none, there = (row.view(1, -1, *[1] * (share.ndim - 2)).to(share) for row in truth.weights)
            weight = (share * there).sum(dim=1, keepdim=True) if truth.exclusive else share * there + (1 - share) * none
            counted = counted * weight
        return mean_of((losses * counted).sum(), counted.sum())

    def _each(self, logits: Tensor, truth: Truth) -> Tensor:
        """(B, 1, *S) losses of exclusive channels, (B, C, *S) of others."""
        if truth.exclusive:
            share = truth.share * (1 - self.smoothing) + self.smoothing / logits.shape[1]
            log = logits.log_softmax(dim=1)
            focus = (1 - log.exp()).clamp(min=0) ** self.gamma if self.gamma else 1.0
            return -(share * focus * log).sum(dim=1, keepdim=True)
        share = truth.share * (1 - self.smoothing) + self.smoothing / 2
        if not self.gamma:
            return F.binary_cross_entropy_with_logits(logits, share, reduction="none")
        probability = logits.sigmoid()
        there = share * (1 - probability) ** self.gamma * F.logsigmoid(logits)
        return -(there + (1 - share) * probability**self.gamma * F.logsigmoid(-logits))


class Focal(CrossEntropy):
    """The focal loss with the paper's focusing; its alpha is `weights`, such as (0.75, 0.25). Arguments as of `CrossEntropy`."""

    def __init__(self, *, gamma: float = 2.0, smoothing: float = 0.0, weights: Weights = "equal", scale_weight: float = 0.5) -> None:
        super().__init__(gamma=gamma, smoothing=smoothing, weights=weights, scale_weight=scale_weight)


class DiceCrossEntropy(CrossEntropy):
    """Soft Dice plus cross entropy (or the focal loss, with `gamma`), the default of segmenters; arguments as of `CrossEntropy`."""

    def at_scale(self, logits: Tensor, truth: Truth) -> Tensor:
        """The sum of both."""
        return _mean_dice(logits, truth) + super().at_scale(logits, truth)


class Tversky(Loss):
    """One minus the Tversky index, which weighs false alarms and misses apart; both at 0.5 is Dice.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        power: Exponent of the loss; 0.75 is the focal Tversky loss of the paper, 1 / gamma with gamma = 4 / 3.
        scale_weight: See `Loss`.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, power: float = 1.0, scale_weight: float = 0.5) -> None:
        super().__init__(scale_weight=scale_weight)
        if min(alpha, beta, power) <= 0:
            raise ConfigError(f"alpha, beta and power must be > 0, got {alpha}, {beta} and {power}")
        self.alpha, self.beta, self.power = alpha, beta, power

    def at_scale(self, logits: Tensor, truth: Truth) -> Tensor:
        """The mean over classes."""
        probability, share = _foreground(logits, truth)
        overlap, found, there = _sums(probability, share)
        missed, alarmed = there - overlap, found - overlap
        index = (overlap + 0.5) / (overlap + self.alpha * alarmed + self.beta * missed + 0.5)
        return ((1 - index).clamp(min=1e-6) ** self.power).mean()


def dice_loss(logits: Tensor, lesion: Tensor) -> Tensor:
    """One minus the soft Dice overlap, summed over the whole batch of all processes: crops without lesion count by their false positives.

    Args:
        logits: (B, 1, *S).
        lesion: (B, 1, *S) of 0 and 1.
    """
    return _mean_dice(logits, Truth.of_mask(lesion, 1))


def _mean_dice(logits: Tensor, truth: Truth) -> Tensor:
    """The mean of one minus soft Dice over classes."""
    overlap, found, there = _sums(*_foreground(logits, truth))
    return (1 - (2 * overlap + 1) / (found + there + 1)).mean()


def _foreground(logits: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Probabilities and truth (B, C, *S) of all classes but the background."""
    if truth.exclusive:
        return logits.float().softmax(dim=1)[:, 1:], truth.share[:, 1:]
    return logits.float().sigmoid(), truth.share


def _sums(probability: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(C,) sums over the batch and space of all processes: of the overlap, of what is found, of what is there."""
    axes = [axis for axis in range(share.ndim) if axis != 1]
    overlap, found, there = (part.sum(dim=axes) for part in (probability * share, probability, share))
    return summed(overlap), summed(found), summed(there)
