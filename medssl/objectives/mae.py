"""Masked autoencoder: the encoder sees a quarter of the patches, a light decoder predicts the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021, https://arxiv.org/abs/2111.06377; 3D after Chen et al., 2022,
https://arxiv.org/abs/2204.11716.
"""

import math

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.decoder import PatchDecoder
from medssl.models.encoder import TokenEncoder
from medssl.models.patches import grid_of, patchify, unpatchify
from medssl.models.vit import take
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.processes import mean_of
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import PatchMask, random_mask
from medssl.views.streams import Streams


class MAE(Objective):
    """Predict hidden patches from visible ones.

    Args:
        encoder: Sees visible patches only.
        mask_ratio: Share of patches hidden; 0.75 in the paper.
        normalise_patches: Predict patches with zero mean and unit deviation (better features, pictures without contrast).
        decoder_width: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        views: Variation of the crops before masking; flips alone by default, as masking needs little more (section 4.1, table 1e).

    Raises:
        ConfigError: A ratio outside (0, 1).
    """

    encoder: TokenEncoder

    def __init__(
        self,
        encoder: TokenEncoder,
        *,
        mask_ratio: float = 0.75,
        normalise_patches: bool = True,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        views: Augment | None = None,
    ) -> None:
        super().__init__(encoder)
        self.encoder: TokenEncoder
        if not 0 < mask_ratio < 1:
            raise ConfigError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}")
        self.mask_ratio = mask_ratio
        self.normalise_patches = normalise_patches
        self.views = views or Augment(rotate_degrees=10, scale=0.2, gain=0, offset=0, noise=0, blur=0)
        patch_values = encoder.in_channels * math.prod(encoder.patch)
        self.decoder = PatchDecoder(encoder.width, patch_values, width=decoder_width, depth=decoder_depth, heads=decoder_heads)

    def forward(self, batch: Batch) -> Loss:
        """Mean squared error on hidden patches, as far as they show the body."""
        view = augment(batch.crop(0), self.views, streams=batch.streams, masks=batch.inside(0).float())
        mask = self.mask(view.images, batch.streams)
        error = hidden_error(self.predict(view.images, mask), self.target(view.images, mask), self.weight(view.masks, mask))
        return Loss(error, {"masked_mse": error.detach()})

    def mask(self, images: Tensor, streams: Streams) -> PatchMask:
        """Random visible and hidden patches of crops (B, C, *S)."""
        patches = math.prod(grid_of(images.shape[2:], self.encoder.patch))
        return random_mask(patches, self.mask_ratio, streams=streams, device=images.device)

    def weight(self, inside: Tensor | None, mask: PatchMask) -> Tensor | None:
        """(B, N_hidden, P * C) 1 where a voxel of a hidden patch counts, None where all do."""
        return None if inside is None else take(patchify(inside, self.encoder.patch), mask.hidden)

    def predict(self, images: Tensor, mask: PatchMask) -> Tensor:
        """Predicted hidden patches (B, N_hidden, P * C)."""
        latent = self.encoder(images, mask.visible)
        prediction: Tensor = self.decoder(latent, mask.visible, mask.hidden, grid_of(images.shape[2:], self.encoder.patch))
        return prediction

    def target(self, images: Tensor, mask: PatchMask) -> Tensor:
        """True hidden patches (B, N_hidden, P * C), normalised where asked."""
        hidden = take(patchify(images, self.encoder.patch), mask.hidden)
        return normalise(hidden) if self.normalise_patches else hidden

    @torch.no_grad()
    def picture(self, batch: Batch) -> Tensor:
        """(3, B, C, *S): crops, masked crops, and crops with the hidden patches filled in.

        Normalised predictions get the mean and deviation of the true patch, so these pictures flatter the contrast.
        """
        images = batch.crop(0)
        grid = grid_of(images.shape[2:], self.encoder.patch)
        mask = self.mask(images, batch.streams)
        patches = patchify(images, self.encoder.patch)
        prediction = self.predict(images, mask).to(patches)
        if self.normalise_patches:
            hidden = take(patches, mask.hidden)
            prediction = prediction * (hidden.var(dim=2, keepdim=True) + _EPSILON).sqrt() + hidden.mean(dim=2, keepdim=True)
        where = mask.hidden[:, :, None].expand_as(prediction)
        masked = patches.scatter(1, where, float(images.min()))
        filled = patches.scatter(1, where, prediction)
        return torch.stack([images, *(unpatchify(part, self.encoder.patch, grid) for part in (masked, filled))])


_EPSILON = 1e-6


def normalise(patches: Tensor) -> Tensor:
    """Patches (B, N, P * C) with zero mean and unit deviation each (section 3 of the paper)."""
    return (patches - patches.mean(dim=2, keepdim=True)) / (patches.var(dim=2, keepdim=True) + _EPSILON).sqrt()


def hidden_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error over the values of hidden patches that count, in float32, over all processes."""
    error = (prediction.float() - target.float()).square()
    if weight is None:
        return mean_of(error.sum(), torch.tensor(float(error.numel()), device=error.device))
    return mean_of((error * weight).sum(), weight.sum())
