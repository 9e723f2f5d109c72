"""SparK: masked pretraining of a convolutional encoder, which leaves hidden blocks out at every scale.

Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling", 2023, https://arxiv.org/abs/2301.03580;
in 3D with squared error on voxels: S3D, Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation", 2024,
https://arxiv.org/abs/2410.23132. The mask is an argument of the encoder, and a block is as wide as its total stride, so that no cell of any
scale is partly hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder, visible_cells
from medssl.models.patches import grid_of, patches_at
from medssl.models.unet import PyramidDecoder
from medssl.objectives.mae import MILD, hidden_error, in_pictures, moments, normalise
from medssl.objectives.objective import Loss, Objective
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, partition
from medssl.views.streams import Streams

_LEAST_WIDTH = 8
_MASKING = Masking(0.6)


class SparK(Objective):
    """Predict hidden blocks from all scales of the visible ones.

    Args:
        encoder: With one or several scales; hidden blocks are left out of each.
        masking: How blocks are hidden; 60 % of single blocks in the paper, 75 % in 3D.
        block: Voxels of a block along each axis; by default the encoder's stride.
        normalise_blocks: Predict blocks with zero mean and unit deviation, as the paper does; else voxels as they are.
        shrink: How many times narrower the decoder is than the encoder, at every scale.
        views: Variation of the crops before masking; by default that of `MAE`.

    Raises:
        ConfigError: A block with a wrong number of axes, or a shrink below 1.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        masking: Masking = _MASKING,
        block: Sequence[int] | None = None,
        normalise_blocks: bool = True,
        shrink: int = 2,
        views: Augment = MILD,
    ) -> None:
        super().__init__(encoder)
        self.masking = masking
        self.block, self.normalise_blocks = tuple(block or encoder.stride), normalise_blocks
        if len(self.block) != encoder.spatial_dims or min(self.block) < 1 or shrink < 1:
            raise ConfigError(
                f"block takes {encoder.spatial_dims} positive numbers and shrink is at least 1, got {list(self.block)}, {shrink}"
            )
        self.views = views
        conv = nn.Conv2d if encoder.spatial_dims == 2 else nn.Conv3d
        narrow = [max(width // shrink, _LEAST_WIDTH) for width in encoder.widths]
        self.mask_tokens = nn.ParameterList(nn.Parameter(0.02 * torch.randn(width)) for width in encoder.widths)
        self.project = nn.ModuleList(conv(width, slim, 1) for width, slim in zip(encoder.widths, narrow, strict=True))
        self.decoder = PyramidDecoder(narrow, encoder.strides)
        self.head = conv(self.decoder.out_widths[0], encoder.in_channels, 1)

    def forward(self, batch: Batch) -> Loss:
        """Mean squared error on hidden voxels, as far as they show the body in a sequence that is there."""
        view = augment(batch.crop(0), self.views, streams=batch.streams, masks=batch.inside(0))
        hidden = self.hidden(view.images, batch.streams)
        places = partition(hidden, view.images.device).hidden
        weight = None if view.masks is None else patches_at(view.masks, self.block, places)
        target = patches_at(view.images, self.block, places)
        if self.normalise_blocks:
            target = normalise(target, weight)
        error = hidden_error(patches_at(self.predict(view.images, hidden), self.block, places), target, weight)
        return Loss(error, {"masked_mse": error.detach()})

    def hidden(self, images: Tensor, streams: Streams) -> Tensor:
        """(B, *K) bool on the CPU: hidden blocks of crops (B, C, *S)."""
        return self.masking.hidden(grid_of(images.shape[2:], self.block), streams=streams)

    def predict(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Predicted crops (B, C, *S)."""
        hidden = hidden.to(images.device, non_blocking=True)
        pyramid = self.encoder.pyramid(images, hidden)
        filled = [
            project(torch.where(visible_cells(hidden, features.shape[2:]).bool(), features, _as_cells(token, features)))
            for features, token, project in zip(pyramid, self.mask_tokens, self.project, strict=True)
        ]
        prediction: Tensor = self.head(self.decoder(filled)[0])
        return prediction

    @torch.no_grad()
    def picture(self, batch: Batch) -> Tensor:
        """(3, B, C, *S): crops, masked crops, and crops with the hidden blocks filled in.

        Normalised predictions get the mean and deviation of the true block, so these pictures flatter the contrast.
        """
        images = batch.crop(0)
        hidden = self.hidden(images, batch.streams)
        places = partition(hidden, images.device).hidden
        prediction = patches_at(self.predict(images, hidden), self.block, places)
        if self.normalise_blocks:
            inside = patches_at(batch.inside(0), self.block, places)
            mean, deviation = moments(patches_at(images, self.block, places), inside)
            prediction = prediction * deviation + mean
        return in_pictures(images, self.block, places, prediction)


def _as_cells(token: Tensor, features: Tensor) -> Tensor:
    """(D,) -> (1, D, 1, ...) that can stand in a feature map (B, D, *G)."""
    return token.to(features).view(1, -1, *(1 for _ in features.shape[2:]))
