"""Residual U-Net, built from MONAI's UNet.

Kerfoot et al., "Left-Ventricle Quantification Using Residual U-Net", 2018, https://doi.org/10.1007/978-3-030-12029-0_40.
"""

from collections.abc import Sequence

from monai.networks.nets import UNet
from torch import Tensor

from medssl.models.architecture import Architecture, Network


class ResidualUNet(Network):
    """A convolutional segmenter without pretraining: the baseline every pretrained one has to beat.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: C.
        classes: Output channels.
        widths: Channels at each scale, finest first; each scale halves the grid.
    """

    task = "segmentation"

    def __init__(
        self, *, spatial_dims: int = 2, in_channels: int = 1, classes: int = 1, widths: Sequence[int] = (16, 32, 64, 128, 256)
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.classes, self.widths = spatial_dims, in_channels, classes, tuple(widths)
        self.net = UNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=classes,
            channels=self.widths,
            strides=[2] * (len(self.widths) - 1),
            num_res_units=2,
        )

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(
            self, spatial_dims=self.spatial_dims, in_channels=self.in_channels, classes=self.classes, widths=list(self.widths)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes, *S)."""
        logits: Tensor = self.net(images)
        return logits
