"""Convolutions that can leave hidden cells out: convolution, instance normalisation, and the residual block of them.

Hidden cells are zero before and after each layer, and the statistics of the normalisation are those of the visible cells alone: SparK (Tian
et al., "Designing BERT for Convolutional Networks", 2023, https://arxiv.org/abs/2301.03580). The block is ResNet-D's (He et al., "Bag of
Tricks", 2019, https://arxiv.org/abs/1812.01187), as in nnU-Net.
"""

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01  # of LeakyReLU below 0, as in nnU-Net


class ConvNorm(nn.Module):
    """A convolution and an instance normalisation, dense or over visible cells alone.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Odd width along each axis; two numbers for slices, three for volumes.
        stride: Along each axis.
        bias: A bias in the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool = True) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if len(kernel) == 2 else nn.InstanceNorm3d
        padding = tuple(width // 2 for width in kernel)
        self.conv = conv(in_channels, out_channels, tuple(kernel), stride=tuple(stride), padding=padding, bias=bias)
        self.norm = norm(out_channels, affine=True)

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S / stride).

        Args:
            images: Zero in hidden cells.
            visible: (B, 1, *S / stride), 1 in visible cells of the result, else 0; None for all visible.
        """
        features: Tensor = self.conv(images)
        if visible is not None:
            return sparse_instance_norm(features, visible, self.norm.weight, self.norm.bias, self.norm.eps)
        normalised: Tensor = self.norm(features)
        return normalised


def sparse_instance_norm(features: Tensor, visible: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Instance normalisation with the statistics of visible cells; hidden cells become 0.

    Args:
        features: (B, C, *G).
        visible: (B, 1, *G), 1 or 0.
        weight: (C,).
        bias: (C,).
        eps: Added to the variance.
    """
    axes = tuple(range(2, features.ndim))
    exact = features.float()
    count = visible.sum(dim=axes, keepdim=True).clamp(min=1)
    mean = (exact * visible).sum(dim=axes, keepdim=True) / count
    centred = (exact - mean) * visible
    variance = centred.square().sum(dim=axes, keepdim=True) / count
    shape = (1, -1, *(1,) * len(axes))
    normalised = centred * (variance + eps).rsqrt() * weight.view(shape) + bias.view(shape)
    return (normalised * visible).to(features.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions and what came in, added; a stride averages what came in.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Odd width along each axis.
        stride: Of the first convolution, along each axis.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        ones = (1,) * len(kernel)
        self.stride = tuple(stride)
        self.first = ConvNorm(in_channels, out_channels, kernel, stride)
        self.second = ConvNorm(out_channels, out_channels, kernel, ones)
        self.skip = ConvNorm(in_channels, out_channels, ones, ones, bias=False) if in_channels != out_channels else None

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S / stride); `visible` is (B, 1, *S / stride)."""
        features = F.leaky_relu(self.first(images, visible), SLOPE)
        features = self.second(features, visible)
        return F.leaky_relu(features + self._skipped(images, visible), SLOPE)

    def _skipped(self, images: Tensor, visible: Tensor | None) -> Tensor:
        if math.prod(self.stride) > 1:
            images = (F.avg_pool2d if len(self.stride) == 2 else F.avg_pool3d)(images, self.stride)
        return images if self.skip is None else self.skip(images, visible)
