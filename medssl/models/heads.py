"""Heads on pooled features: the classifier of lesions, and the projector of contrastive objectives."""

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


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """The two-layer projection of SimCLR (Chen et al., 2020, section 2.1): (B, D) -> (B, out)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))
