"""The convolutional decoder on a ViT that segments.

It follows UNETR (Hatamizadeh et al., 2021, https://arxiv.org/abs/2103.10504) in joining transformer features with convolutional
skips at every scale; its skips come from a convolutional path over the image, as in TransUNet (Chen et al., 2021, https://arxiv.org/abs/2102.04306).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.encoder import TokenEncoder


class ConvBlock(nn.Module):
    """Two 3-wide convolutions with instance normalisation and a residual connection.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels in.
        out_channels: Channels out.
        stride: Stride of the first convolution.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if spatial_dims == 2 else nn.InstanceNorm3d
        self.body = nn.Sequential(
            conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            norm(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            conv(out_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels, affine=True),
        )
        self.shortcut = nn.Sequential(conv(in_channels, out_channels, 1, stride=stride, bias=False), norm(out_channels, affine=True))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S / stride)."""
        return F.leaky_relu(self.body(images) + self.shortcut(images), 0.01)


class ViTSegmenter(Network):
    """A ViT joined with a convolutional path, and a decoder back to full resolution.

    Args:
        encoder: The transformer, usually pretrained; its patch is the same power of two along each axis.
        classes: Output channels; 1 for lesion against the rest.
        width: Channels at half resolution, the finest that convolutions see; doubled at each coarser scale, at most 8-fold.

    Raises:
        ConfigError: A patch that is no power of two, or differs between axes.
    """

    task = "segmentation"

    def __init__(self, encoder: TokenEncoder, *, classes: int = 1, width: int = 32) -> None:
        super().__init__()
        scales = encoder.patch[0].bit_length() - 1
        if len(set(encoder.patch)) != 1 or encoder.patch[0] != 2**scales or scales < 2:
            raise ConfigError(f"a segmenter needs a patch of one power of two, at least 4, along all axes, got {list(encoder.patch)}")
        self.encoder, self.classes, self.width = encoder, classes, width
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        widths = [width * min(2**scale, 8) for scale in range(scales)]
        dims = self.spatial_dims
        self.stem = ConvBlock(dims, encoder.in_channels, widths[0], stride=2)
        self.down = nn.ModuleList(ConvBlock(dims, widths[scale], widths[scale + 1], stride=2) for scale in range(scales - 1))
        self.join = ConvBlock(dims, widths[-1] + encoder.width, widths[-1])
        self.up = nn.ModuleList(ConvBlock(dims, widths[scale + 1] + widths[scale], widths[scale]) for scale in range(scales - 1))
        self.head = (nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d)(widths[0], classes, 2, stride=2)

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(self, encoder=self.encoder.architecture(), classes=self.classes, width=self.width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes, *S)."""
        skips = [self.stem(images)]
        for down in self.down:
            skips.append(down(skips[-1]))
        current = self.join(torch.cat([skips.pop(), self.encoder.dense(images)], dim=1))
        for up in reversed(self.up):
            skip = skips.pop()
            current = F.interpolate(current, size=skip.shape[2:], mode="bilinear" if self.spatial_dims == 2 else "trilinear")
            current = up(torch.cat([current, skip], dim=1))
        logits: Tensor = self.head(current)
        return logits
