"""Training of a lesion classifier: cross entropy over slices, bags of slices or volumes whose answer is known."""

from torch import Tensor

from medssl.training.finetuning.lesions import LesionModule
from medssl.training.losses import CrossEntropy, Loss, Truth


class Classifier(LesionModule):
    """Lesion against none, one class of several, or several labels; of a slice, a bag of slices or a volume at a time."""

    def default_loss(self) -> Loss:
        """Cross entropy."""
        return CrossEntropy()

    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss of logits (B, C) against labels (B,) or (B, C) over the samples with a known label; -1 is not known."""
        del lesion
        return self.criterion(logits, Truth.of_labels(label, logits.shape[1], weights=self.weights))
