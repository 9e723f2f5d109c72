"""Heads on pooled features: the classifier of lesions, and the projectors and prototypes of self-supervised objectives."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
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


class AttentionClassifier(Network):
    """A classifier of scans from their slices, which it weighs by gated attention.

    Ilse et al., "Attention-based Deep Multiple Instance Learning", 2018, equations 7 and 9, https://arxiv.org/abs/1802.04712. The order of
    the slices does not count, and any number of them will do, so a label of a whole scan trains an encoder of slices.

    Args:
        encoder: Of slices, usually pretrained.
        classes: Output channels; 1 for lesion against none, else one a class.
        hidden: Width of the attention.
        dropout: Share of pooled features dropped in training.

    Raises:
        ConfigError: An encoder of volumes.
    """

    task = "classification"
    bags = True

    def __init__(self, encoder: Encoder, *, classes: int = 1, hidden: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        if encoder.spatial_dims != 2:
            raise ConfigError("attention pools slices: give an encoder of slices, or Classifier for one of volumes")
        self.encoder, self.classes, self.hidden, self.dropout = encoder, classes, hidden, dropout
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        self.content, self.gate = nn.Linear(encoder.width, hidden), nn.Linear(encoder.width, hidden)
        self.weight = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.LayerNorm(encoder.width), nn.Dropout(dropout), nn.Linear(encoder.width, classes))

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(self, encoder=self.encoder.architecture(), classes=self.classes, hidden=self.hidden, dropout=self.dropout)

    def attention(self, features: Tensor) -> Tensor:
        """Features of slices (B, N, D) -> their weights (B, N, 1), which sum to 1."""
        gated = self.content(features).tanh() * self.gate(features).sigmoid()
        weights: Tensor = self.weight(gated).softmax(dim=1)
        return weights

    def forward(self, bags: Tensor) -> Tensor:
        """(B, N, C, *S) -> logits (B, classes)."""
        features = self.encoder.pooled(bags.flatten(0, 1)).view(*bags.shape[:2], -1)  # (B, N, D)
        logits: Tensor = self.head((self.attention(features) * features).sum(dim=1))
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

    def forward(self, features: Tensor, *, frozen: Tensor | None = None) -> Tensor:
        """Features (B, D) -> cosines (B, K) in float32; prototypes that are frozen get a gradient of 0, for which other processes wait.

        Args:
            features: (B, D).
            frozen: () bool, whether prototypes are; None for no.
        """
        prototypes = self.prototypes if frozen is None else torch.where(frozen, self.prototypes.detach(), self.prototypes)
        points = self.projector(features)
        with torch.autocast(points.device.type, enabled=False):
            cosines: Tensor = F.normalize(points.float(), dim=1) @ F.normalize(prototypes.float(), dim=1).T
        return cosines
