"""Training of a lesion segmenter: Dice and cross entropy."""

import torch.nn.functional as F
from torch import Tensor

from medssl.objectives.processes import summed
from medssl.training.lesions import LesionModule


class Segmenter(LesionModule):
    """Binary lesion segmentation from crops with masks."""

    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """Soft Dice over the batch plus cross entropy."""
        del label
        return dice_loss(logits, lesion) + F.binary_cross_entropy_with_logits(logits.float(), lesion.float())


def dice_loss(logits: Tensor, lesion: Tensor) -> Tensor:
    """One minus the soft Dice overlap, summed over the whole batch of all processes: crops without lesion count by their false positives.

    Milletari et al., "V-Net", 2016, section 3, https://arxiv.org/abs/1606.04797, with the sum instead of the sum of squares below.

    Args:
        logits: (B, 1, *S).
        lesion: (B, 1, *S) of 0 and 1.
    """
    probability, lesion = logits.float().sigmoid(), lesion.float()
    overlap = summed((probability * lesion).sum())
    return 1 - (2 * overlap + 1) / (summed(probability.sum() + lesion.sum()) + 1)
