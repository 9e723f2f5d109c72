"""Training of a lesion segmenter: Dice and cross entropy, or another loss of masks."""

from typing import cast

from torch import Tensor

from medssl.models.unet import PyramidUNet
from medssl.training.finetuning.lesions import LesionModule
from medssl.training.losses import DiceCrossEntropy, Loss, Truth


class Segmenter(LesionModule):
    """Lesion segmentation from crops with masks: lesion against the rest, or classes."""

    def default_loss(self) -> Loss:
        """Soft Dice plus cross entropy."""
        return DiceCrossEntropy()

    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss of logits (B, C, *S) against the numbers of classes (B, 1, *S), 0 for background."""
        del label
        return self.criterion(logits, Truth.of_mask(lesion, logits.shape[1], weights=self.weights))

    def step_loss(self, images: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss at every scale where the network has deep supervision."""
        if not getattr(self.network, "deep_supervision", False):
            return super().step_loss(images, lesion, label)
        scales = cast(PyramidUNet, self.network).scales(images)
        return self.criterion(scales, Truth.of_mask(lesion, scales[0].shape[1], weights=self.weights))
