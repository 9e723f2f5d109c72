"""Training of a lesion classifier: cross entropy over slices or volumes whose answer is known."""

import torch.nn.functional as F
from torch import Tensor

from medssl.objectives.processes import mean_of
from medssl.training.lesions import LesionModule


class Classifier(LesionModule):
    """Lesion against none, a slice or a volume at a time."""

    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """Cross entropy over the samples with a known label (0 or 1)."""
        del lesion
        known = (label >= 0).float()
        losses = F.binary_cross_entropy_with_logits(logits[:, 0].float(), label.clamp(min=0).float(), reduction="none")
        return mean_of((losses * known).sum(), known.sum())
