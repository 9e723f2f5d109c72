"""Answers without training: the neighbours of a picture, or of its cells, among features that are remembered.

Weighted neighbours as in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4,
https://arxiv.org/abs/1805.01978, with the temperature and number of DINO (Caron et al., 2021, https://arxiv.org/abs/2104.14294).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.models.architecture import Architecture, Network
from medssl.models.encoder import Encoder
from medssl.models.patches import as_map

_DOUBT = 1e-3  # a vote for each answer, so that a share of 0 or 1 still tells near neighbours from far ones


def pooled(encoder: Encoder, images: Tensor) -> Tensor:
    """Pooled features (B, D) of images (B, C, *S), or of bags (B, N, C, *S) of slices: the mean over the slices."""
    if images.ndim == encoder.spatial_dims + 2:
        return encoder.pooled(images)
    return encoder.pooled(images.flatten(0, 1)).reshape(*images.shape[:2], -1).mean(dim=1)


class Neighbours(Network):
    """The answers of the most similar remembered features, weighted by likeness.

    Args:
        encoder: Usually pretrained; it is not trained here.
        task: `segmentation`: cells of the deepest feature map are compared; `classification`: pooled features.
        size: N, features that are remembered.
        classes: Answers to each; 1 for lesion against none.
        bags: Of classification: bags of slices are compared, by the mean of their features.
        exclusive: Exactly one of the answers holds: logits are those whose softmax, not whose sigmoid, is the share of each.
        neighbours: How many answer.
        temperature: A neighbour counts exp(cosine / temperature).
    """

    bank: Tensor
    answers: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        task: Literal["segmentation", "classification", "detection"],
        size: int,
        classes: int = 1,
        bags: bool = False,
        exclusive: bool = False,
        neighbours: int = 20,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.encoder, self.task, self.size, self.classes, self.bags = encoder, task, size, classes, bags
        self.exclusive, self.neighbours, self.temperature = exclusive, neighbours, temperature
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        self.register_buffer("bank", torch.zeros(size, encoder.width))
        self.register_buffer("answers", torch.zeros(size, classes))

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        fields: dict[str, object] = {"task": self.task, "size": self.size, "classes": self.classes, "bags": self.bags}
        fields |= {"neighbours": self.neighbours, "temperature": self.temperature}
        options = Architecture.changed(Neighbours, exclusive=self.exclusive)
        return Architecture.of(self, encoder=self.encoder.architecture(), **fields, **options)

    def remember(self, features: Tensor, answers: Tensor) -> None:
        """Take features (N, D) and their answers (N, classes), 0 to 1, in place of what was remembered."""
        self.bank.copy_(F.normalize(features.float(), dim=1))
        self.answers.copy_(answers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S), or bags (B, N, C, *S), -> logits (B, classes), or (B, classes, *S) of segmentation."""
        if self.task == "classification":
            return self.asked(pooled(self.encoder, images))
        cells = self.encoder.dense(images)  # (B, D, *G)
        logits = self.asked(cells.flatten(2).transpose(1, 2).flatten(0, 1)).reshape(len(images), -1, self.classes)
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        return F.interpolate(as_map(logits, cells.shape[2:]), size=images.shape[2:], mode=mode)

    def asked(self, features: Tensor) -> Tensor:
        """Features (M, D) -> logits (M, classes) of the weighted share of each answer among the neighbours."""
        likeness = F.normalize(features.float(), dim=1) @ self.bank.T  # (M, N)
        nearest, index = likeness.topk(min(self.neighbours, self.size), dim=1)
        votes = ((nearest - 1) / self.temperature).exp()[:, :, None] * torch.stack([self.answers, 1 - self.answers])[:, index]
        shares: Tensor = votes.sum(dim=2) + _DOUBT  # (2, M, classes), for and against
        return shares[0].log() if self.exclusive else shares[0].log() - shares[1].log()
