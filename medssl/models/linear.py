"""The linear probe of segmentation: one linear map a cell of every feature map, and nothing else that learns."""

import torch.nn.functional as F
from torch import Tensor, nn

from medssl.models.architecture import Architecture, Network
from medssl.models.encoder import Encoder


class LinearSegmenter(Network):
    """A 1 x 1 convolution on each map of an encoder's pyramid, enlarged and summed: one linear map of all features at a place.

    The columns of features are those of Hariharan et al., "Hypercolumns", 2015, https://arxiv.org/abs/1411.5752; a transformer has one map.

    Args:
        encoder: Usually pretrained.
        classes: Output channels; 1 for lesion against the rest.
    """

    task = "segmentation"

    def __init__(self, encoder: Encoder, *, classes: int = 1) -> None:
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        conv = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        self.heads = nn.ModuleList(conv(width, classes, 1) for width in encoder.widths)

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(self, encoder=self.encoder.architecture(), classes=self.classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes, *S)."""
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        maps = [head(features) for head, features in zip(self.heads, self.encoder.pyramid(images), strict=True)]
        enlarged = [F.interpolate(logits, size=images.shape[2:], mode=mode) for logits in maps]
        return sum(enlarged[1:], start=enlarged[0])
