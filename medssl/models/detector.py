"""A detector of lesions by their centres: a heat map, the size of the box, and where in its cell the centre lies.

Zhou et al., "Objects as Points" (CenterNet), 2019, https://arxiv.org/abs/1904.07850, for slices and volumes, on any encoder.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.encoder import Encoder
from medssl.models.unet import PyramidDecoder

_RARE = -2.19  # the logit of 0.1, with which the heat starts (section 4 of the focal loss paper, Lin et al., 2017, as in CenterNet)


class CentreDetector(Network):
    """An encoder, a decoder up to one of its finer maps, and a head of three parts.

    Args:
        encoder: Usually pretrained.
        level: Which map of the decoder is read: 0 is full resolution, each further one a scale coarser. Lesions closer than a cell are one.
        width: Channels between the decoder and the parts of the head.

    Raises:
        ConfigError: The decoder has no such map.
    """

    task = "detection"

    def __init__(self, encoder: Encoder, *, level: int = 1, width: int = 32) -> None:
        super().__init__()
        self.encoder, self.level, self.width = encoder, level, width
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        self.decoder = PyramidDecoder(encoder.widths, encoder.strides)
        steps = len(self.decoder.steps)
        if not 0 <= level <= steps:
            raise ConfigError(f"level must be between 0 and {steps}, the scales of the decoder, got {level}")
        self.decoder.steps = self.decoder.steps[: steps - level]
        conv: Callable[..., nn.Module] = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        features = self.decoder.out_widths[level]
        self.parts = nn.ModuleDict(
            {
                name: nn.Sequential(conv(features, width, 3, padding=1), nn.ReLU(inplace=True), conv(width, channels, 1))
                for name, channels in (("heat", 1), ("size", self.spatial_dims), ("offset", self.spatial_dims))
            }
        )
        heat = self.parts["heat"]
        if isinstance(heat, nn.Sequential) and isinstance(heat[2].bias, Tensor):
            nn.init.constant_(heat[2].bias, _RARE)

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(self, encoder=self.encoder.architecture(), level=self.level, width=self.width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, 1 + 2 d, *G): logit of the heat, size of the box in cells, place of the centre in its cell (0 to 1)."""
        features = self.decoder(self.encoder.pyramid(images))[0]
        return torch.cat([part(features) for part in self.parts.values()], dim=1)
