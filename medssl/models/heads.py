"""Heads on pooled features: the classifier of lesions, and the projectors and prototypes of self-supervised objectives."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.models.architecture import Architecture, Network
from medssl.models.encoder import Encoder


class Classifier(Network):
    """Mean-pooled features of any encoder and one linear layer.

    Args:
        encoder: Usually pretrained.
        classes: Output channels; 1 for lesion against none, else one a class.
        dropout: Share of pooled features dropped in training.
    """

    task = "classification"

    def __init__(self, encoder: Encoder, *, classes: int = 1, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder, self.classes, self.dropout = encoder, classes, dropout
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        self.head = nn.Sequential(nn.LayerNorm(encoder.width), nn.Dropout(dropout), nn.Linear(encoder.width, classes))

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(self, encoder=self.encoder.architecture(), classes=self.classes, dropout=self.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes)."""
        logits: Tensor = self.head(self.encoder.pooled(images))
        return logits


ViTClassifier = Classifier  # its name in older configurations and bundles


Norm = Literal["none", "layer", "batch"]
"""Normalisation between the layers of a projector; `batch` takes its statistics from the rows of one process."""

_NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


def projector(width: int, hidden: int, out: int, *, layers: int = 2, norm: Norm = "none") -> nn.Sequential:
    """The projection in which embeddings are compared: (B, D) -> (B, out); SimCLR's (Chen et al., 2020, section 2.1) by default.

    Args:
        width: D.
        hidden: Width between layers.
        out: Width of the embedding.
        layers: Linear layers, at least 1.
        norm: What normalises between them.
    """
    widths = [width, *[hidden] * (layers - 1)]
    parts: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        normalised = [] if norm == "none" else [_NORMS[norm](after)]
        parts += [nn.Linear(before, after, bias=norm == "none"), *normalised, nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.Linear(widths[-1], out))


class PrototypeHead(nn.Module):
    """Likeness to learned prototypes: a projector, a unit sphere, prototypes of unit length (Caron et al., 2021, appendix C).

    Args:
        width: D.
        hidden: Width of the projector.
        bottleneck: Dimensions of the sphere.
        prototypes: K.
        norm: What normalises between the projector's layers.
    """

    def __init__(self, width: int, *, hidden: int, bottleneck: int, prototypes: int, norm: Norm = "none") -> None:
        super().__init__()
        self.projector = projector(width, hidden, bottleneck, layers=3, norm=norm)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck) * 0.02)

    def forward(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        """Features (B, D) -> cosines (B, K) in float32; prototypes that are frozen get a gradient of 0, for which other processes wait."""
        prototypes = self.prototypes.detach().lerp(self.prototypes, 0.0) if frozen else self.prototypes
        points = self.projector(features)
        with torch.autocast(points.device.type, enabled=False):
            cosines: Tensor = F.normalize(points.float(), dim=1) @ F.normalize(prototypes.float(), dim=1).T
        return cosines
