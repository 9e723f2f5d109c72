"""SimMIM: the encoder sees the whole crop with blocks blanked out, and one linear layer predicts their voxels.

Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", 2022, https://arxiv.org/abs/2111.09886. The encoder keeps its grid, so
that any encoder will do; unlike in a masked autoencoder, hidden blocks save no time.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder, TokenEncoder, visible_cells
from medssl.models.patches import grid_of, patches_at
from medssl.models.vit import take
from medssl.objectives.mae import MILD, in_pictures
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.processes import mean_of
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, partition
from medssl.views.streams import Streams

_MASKING = Masking(0.6)


class SimMIM(Objective):
    """Predict the voxels of hidden blocks from the feature map.

    Args:
        encoder: Sees crops without the hidden blocks; a ViT may have a mask token for them.
        masking: How blocks are hidden; 60 % of single blocks in the paper.
        block: Voxels of a block along each axis, a multiple of the encoder's stride; by default the stride. The paper hides blocks of 32.
        views: Variation of the crops before masking; by default that of `MAE`.

    Raises:
        ConfigError: A block that is no multiple of the stride.
    """

    def __init__(self, encoder: Encoder, *, masking: Masking = _MASKING, block: Sequence[int] | None = None, views: Augment = MILD) -> None:
        super().__init__(encoder)
        self.masking = masking
        self.block = tuple(block or encoder.stride)
        if len(self.block) != len(encoder.stride) or any(size % step for size, step in zip(self.block, encoder.stride, strict=True)):
            raise ConfigError(f"block must be a multiple of the encoder's stride {list(encoder.stride)}, got {list(self.block)}")
        self.views = views
        self.head = nn.Linear(encoder.width, encoder.in_channels * math.prod(encoder.stride))  # a 1-wide convolution, where it is needed

    def forward(self, batch: Batch) -> Loss:
        """Mean absolute error on hidden voxels, as far as they show the body in a sequence that is there."""
        view = augment(batch.crop(0), self.views, streams=batch.streams, masks=batch.inside(0))
        hidden = self.hidden(view.images, batch.streams)
        cells = self.cells(hidden, view.images)
        target = patches_at(view.images, self.encoder.stride, cells)
        weight = None if view.masks is None else patches_at(view.masks, self.encoder.stride, cells)
        error = absolute_error(self.predict(view.images, hidden), target, weight)
        return Loss(error, {"masked_l1": error.detach()})

    def hidden(self, images: Tensor, streams: Streams) -> Tensor:
        """(B, *K) bool on the CPU: hidden blocks of crops (B, C, *S)."""
        return self.masking.hidden(grid_of(images.shape[2:], self.block), streams=streams)

    def cells(self, hidden: Tensor, images: Tensor) -> Tensor:
        """(B, M) the cells of the feature map of crops (B, C, *S) that lie in hidden blocks."""
        grid = grid_of(images.shape[2:], self.encoder.stride)
        return partition(F.interpolate(hidden[:, None].float(), size=grid, mode="nearest")[:, 0].bool(), images.device).hidden

    def predict(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Predicted voxels of hidden cells (B, M, P * C), P voxels a cell."""
        features = self._features(images, hidden.to(images.device, non_blocking=True)).flatten(2).transpose(1, 2)
        prediction: Tensor = self.head(take(features, self.cells(hidden, images)))
        return prediction

    def _features(self, images: Tensor, hidden: Tensor) -> Tensor:
        """The feature map (B, D, *G) with something to say in hidden cells: convolutions get zeros in their place, tokens a mask token."""
        if isinstance(self.encoder, TokenEncoder):
            return self.encoder.dense(images, hidden)
        return self.encoder.dense(images * visible_cells(hidden, images.shape[2:]).to(images))

    @torch.no_grad()
    def picture(self, batch: Batch) -> Tensor:
        """(3, B, C, *S): crops, masked crops, and crops with the hidden voxels filled in."""
        images = batch.crop(0)
        hidden = self.hidden(images, batch.streams)
        return in_pictures(images, self.encoder.stride, self.cells(hidden, images), self.predict(images, hidden))


def absolute_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error over the hidden voxels that count, in float32, over all processes (equation 1 of the paper)."""
    error = (prediction.float() - target.float()).abs()
    if weight is None:
        return mean_of(error.sum(), torch.tensor(float(error.numel()), device=error.device))
    return mean_of((error * weight).sum(), weight.sum())
