"""U-Net on any encoder: from the deepest feature map back to full resolution, joined with the finer maps on the way.

Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597; one convolution per scale on the way up and deep supervision as in nnU-Net
(Isensee et al., 2024, https://arxiv.org/abs/2404.09556); an encoder without scales gets upsampling steps alone, as in Primus (Wald et al.,
2025, https://arxiv.org/abs/2503.01835).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.models.architecture import Architecture, Network
from medssl.models.convolutions import SLOPE, ConvNorm
from medssl.models.encoder import Encoder

_LEAST_WIDTH = 16


class UpStep(nn.Module):
    """One scale finer: a transposed convolution, the finer map beside it, and convolutions.

    Args:
        in_channels: Channels of the coarse map.
        skip_channels: Channels of the finer map of the encoder; 0 where it has none.
        out_channels: Channels out.
        stride: Along each axis.
        convolutions: Number of convolutions, at least 1.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, stride: Sequence[int], *, convolutions: int = 1) -> None:
        super().__init__()
        transposed: Callable[..., nn.Module] = nn.ConvTranspose2d if len(stride) == 2 else nn.ConvTranspose3d
        kernel, ones = (3,) * len(stride), (1,) * len(stride)
        self.up = transposed(in_channels, out_channels, tuple(stride), stride=tuple(stride))
        self.convolutions = nn.ModuleList(
            ConvNorm(out_channels if n else out_channels + skip_channels, out_channels, kernel, ones) for n in range(convolutions)
        )

    def forward(self, coarse: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, C_in, *G) and (B, C_skip, *G * stride) -> (B, C_out, *G * stride)."""
        features: Tensor = self.up(coarse)
        if skip is not None:
            features = torch.cat([features, skip], dim=1)
        for convolution in self.convolutions:
            features = F.leaky_relu(convolution(features), SLOPE)
        return features


class PyramidDecoder(nn.Module):
    """From an encoder's pyramid to full resolution.

    Args:
        widths: Channels of each map of the pyramid, finest first.
        strides: Input voxels per cell of each map, finest first; each divides the next.
        convolutions: Convolutions at each scale.

    Attributes:
        out_widths: Channels of each result, finest first.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[Sequence[int]], *, convolutions: int = 1) -> None:
        super().__init__()
        steps, out_widths = [], [widths[-1]]
        for level in range(len(widths) - 2, -1, -1):
            step = [coarse // fine for coarse, fine in zip(strides[level + 1], strides[level], strict=True)]
            steps.append(UpStep(out_widths[-1], widths[level], widths[level], step, convolutions=convolutions))
            out_widths.append(widths[level])
        for step in _steps(strides[0]):  # finer than the encoder's finest map
            narrow = max(out_widths[-1] // 2, _LEAST_WIDTH)
            steps.append(UpStep(out_widths[-1], 0, narrow, step, convolutions=convolutions))
            out_widths.append(narrow)
        self.steps = nn.ModuleList(steps)
        self.out_widths = tuple(reversed(out_widths))

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, D_s, *G_s), finest first -> maps (B, W_s, *S_s), finest first and at full resolution."""
        skips = list(pyramid)
        results = [skips.pop()]
        for step in self.steps:
            results.append(step(results[-1], skips.pop() if skips else None))
        return results[::-1]


def _steps(stride: Sequence[int]) -> list[list[int]]:
    """A stride as steps of 2, or of what is left of an odd axis."""
    steps, rest = [], list(stride)
    while max(rest) > 1:
        step = [2 if size % 2 == 0 else size for size in rest]
        rest = [size // part for size, part in zip(rest, step, strict=True)]
        steps.append(step)
    return steps


class PyramidUNet(Network):
    """A segmenter on any encoder.

    Args:
        encoder: Usually pretrained.
        classes: Output channels; 1 for lesion against the rest.
        convolutions: Convolutions at each scale of the decoder.
        deep_supervision: Heads at coarser scales too, for `scales`.
    """

    task = "segmentation"

    def __init__(self, encoder: Encoder, *, classes: int = 1, convolutions: int = 1, deep_supervision: bool = False) -> None:
        super().__init__()
        self.encoder, self.classes, self.convolutions, self.deep_supervision = encoder, classes, convolutions, deep_supervision
        self.spatial_dims, self.in_channels = encoder.spatial_dims, encoder.in_channels
        self.decoder = PyramidDecoder(encoder.widths, encoder.strides, convolutions=convolutions)
        conv = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        count = max(len(self.decoder.out_widths) - 1, 1) if deep_supervision else 1  # the deepest map is not decoded
        self.heads = nn.ModuleList(conv(width, classes, 1) for width in self.decoder.out_widths[:count])

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(
            self,
            encoder=self.encoder.architecture(),
            classes=self.classes,
            convolutions=self.convolutions,
            deep_supervision=self.deep_supervision,
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes, *S)."""
        logits: Tensor = self.heads[0](self.decoder(self.encoder.pyramid(images))[0])
        return logits

    def scales(self, images: Tensor) -> list[Tensor]:
        """(B, C, *S) -> logits (B, classes, *S_s) of every head, full resolution first, to be supervised each."""
        maps = self.decoder(self.encoder.pyramid(images))
        return [head(features) for head, features in zip(self.heads, maps, strict=False)]
