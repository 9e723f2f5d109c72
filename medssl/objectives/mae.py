"""Masked autoencoder: the encoder sees a quarter of the patches, a light decoder predicts the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021, https://arxiv.org/abs/2111.06377; 3D after Chen et al., 2022,
https://arxiv.org/abs/2204.11716. A part of the hidden patches decoded: Fu et al., 2024, https://arxiv.org/abs/2401.14391. Hidden sequences:
Bachmann et al., "MultiMAE", 2022, https://arxiv.org/abs/2204.01678, here within one patch embedding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import TokenEncoder
from medssl.models.patch_decoder import DecoderKind, PatchDecoder
from medssl.models.patches import grid_of, patches_at, patchify, unpatchify
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.processes import mean_of
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, PatchMask
from medssl.views.streams import Streams

_RATIO = 0.75

MILD = Augment(rotate_degrees=10, scale=0.2, gain=0, offset=0, noise=0, blur=0)
"""What masking needs beside the choice of crops: little (section 4.1, table 1e)."""


class MAE(Objective):
    """Predict hidden patches from visible ones.

    Args:
        encoder: Sees visible patches only.
        mask_ratio: Share of patches hidden, one by one; 0.75 in the paper.
        normalise_patches: Predict patches with zero mean and unit deviation (better features, pictures without contrast).
        decoder_width: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        views: Variation of the crops before masking; by default flips, rotations up to 10 degrees, zoom up to 20 % and shifts up to 5 %, as
            masking needs little more (crops alone are enough in section 4.1, table 1e).
        masking: Another way to hide patches, with its own ratio.
        decoded: Share of the hidden patches that is decoded and compared, drawn at random, those that show some body first; less is faster.
        decoder: `self`: attention among all tokens; `cross`: from asked-for patches to visible ones alone, which is faster.
        decoder_mlp_width: Width inside the decoder's MLPs; by default 4 times its width.
        channel_drop: Probability with which a sequence that is there is hidden from the encoder altogether: it becomes 0, as does a missing
            one. One always stays. Hidden patches ask for all sequences of the scan.
        context: Neighbouring channels that belong to one sequence, as in `feed.crops.context`.

    Raises:
        ConfigError: A ratio outside (0, 1) or beside another of `masking`, or a share or probability out of range.
    """

    encoder: TokenEncoder

    def __init__(
        self,
        encoder: TokenEncoder,
        *,
        mask_ratio: float = _RATIO,
        normalise_patches: bool = True,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        views: Augment = MILD,
        masking: Masking | None = None,
        decoded: float = 1.0,
        decoder: DecoderKind = "self",
        decoder_mlp_width: int | None = None,
        channel_drop: float = 0.0,
        context: int = 1,
    ) -> None:
        super().__init__(encoder)
        self.encoder: TokenEncoder
        if not 0 < decoded <= 1 or not 0 <= channel_drop < 1:
            raise ConfigError(f"decoded must lie in (0, 1] and channel_drop in [0, 1), got {decoded} and {channel_drop}")
        if context < 1 or encoder.in_channels % context:
            raise ConfigError(f"context must divide the {encoder.in_channels} channels of the encoder, got {context}")
        self.masking = _masking(mask_ratio, masking)
        self.normalise_patches, self.decoded = normalise_patches, decoded
        self.channel_drop, self.context = channel_drop, context
        self.views = views
        patch_values = encoder.in_channels * math.prod(encoder.patch)
        self.decoder = PatchDecoder(
            encoder.width,
            patch_values,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            mlp_width=decoder_mlp_width,
            kind=decoder,
        )

    def forward(self, batch: Batch) -> Loss:
        """Mean squared error on hidden patches, as far as they show the body in a sequence that is there."""
        view = augment(batch.crop(0), self.views, streams=batch.streams, masks=batch.inside(0))
        mask = self.mask(view.images, batch.streams)
        weight = self.weight(view.masks, mask)
        mask, weight = self.part(mask, weight, batch.streams)
        prediction = self.predict(self.seen(view.images, batch), mask)
        error = hidden_error(prediction, self.target(view.images, mask, weight), weight)
        return Loss(error, {"masked_mse": error.detach()})

    def mask(self, images: Tensor, streams: Streams) -> PatchMask:
        """Visible and hidden patches of crops (B, C, *S)."""
        return self.masking.partition(grid_of(images.shape[2:], self.encoder.patch), streams=streams, device=images.device)

    def weight(self, inside: Tensor | None, mask: PatchMask) -> Tensor | None:
        """(B, N_hidden, P * C) bool: where a voxel of a hidden patch counts; None where all do."""
        return None if inside is None else patches_at(inside, self.encoder.patch, mask.hidden)

    def part(self, mask: PatchMask, weight: Tensor | None, streams: Streams) -> tuple[PatchMask, Tensor | None]:
        """The share of the hidden patches that is decoded, with its weight: in random order, patches in which nothing counts last."""
        if self.decoded == 1:
            return mask, weight
        hidden = mask.hidden.shape[1]
        order = streams.uniform(hidden).to(mask.hidden.device, non_blocking=True)
        if weight is not None:
            order = order + ~weight.any(dim=2)
        chosen = order.argsort(dim=1)[:, : max(1, round(self.decoded * hidden))].sort(dim=1).values
        sample = torch.arange(len(chosen), device=chosen.device)[:, None]
        return PatchMask(mask.visible, mask.hidden[sample, chosen]), None if weight is None else weight[sample, chosen]

    def seen(self, images: Tensor, batch: Batch) -> Tensor:
        """(B, C, *S) what the encoder may look at: where sequences are dropped, they and missing ones are 0."""
        if self.channel_drop == 0:
            return images
        present = batch.present[:, 0]
        kept = present & kept_sequences(present, self.channel_drop, self.context, streams=batch.streams)
        return torch.where(kept.view(*kept.shape, *(1 for _ in images.shape[2:])), images, 0)

    def predict(self, images: Tensor, mask: PatchMask) -> Tensor:
        """Predicted hidden patches (B, N_hidden, P * C)."""
        latent = self.encoder(images, mask.visible)
        prediction: Tensor = self.decoder(latent, mask.visible, mask.hidden, grid_of(images.shape[2:], self.encoder.patch))
        return prediction

    def target(self, images: Tensor, mask: PatchMask, weight: Tensor | None = None) -> Tensor:
        """True hidden patches (B, N_hidden, P * C), normalised where asked, over the values that count."""
        hidden = patches_at(images, self.encoder.patch, mask.hidden)
        return normalise(hidden, weight) if self.normalise_patches else hidden

    @torch.no_grad()
    def picture(self, batch: Batch) -> Tensor:
        """(3, B, C, *S): crops, masked crops, and crops with the hidden patches filled in.

        Normalised predictions get the mean and deviation of the true patch, so these pictures flatter the contrast.
        """
        images = batch.crop(0)
        mask = self.mask(images, batch.streams)
        prediction = self.predict(images, mask)
        if self.normalise_patches:
            weight = self.weight(batch.inside(0), mask)
            mean, deviation = moments(patches_at(images, self.encoder.patch, mask.hidden), weight)
            prediction = prediction * deviation + mean
        return in_pictures(images, self.encoder.patch, mask.hidden, prediction)


_EPSILON = 1e-6


def _masking(ratio: float, masking: Masking | None) -> Masking:
    if masking is None:
        return Masking(ratio)
    if ratio not in (_RATIO, masking.ratio):
        raise ConfigError(f"mask_ratio is {ratio} and masking.ratio {masking.ratio}; leave mask_ratio out where masking is given")
    return masking


def normalise(patches: Tensor, weight: Tensor | None = None) -> Tensor:
    """Patches (B, N, P * C) with zero mean and unit deviation each (section 3 of the paper).

    With a weight, mean and deviation are those of the values that count: the edge between body and background, or a missing sequence, would
    otherwise outweigh all detail of the patch. What does not count is scaled along and must be left out of the loss.
    """
    mean, deviation = moments(patches, weight)
    return (patches - mean) / deviation


def moments(patches: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, N, 1) of patches (B, N, P * C), over the values where `weight` (the same shape, 0 or 1) is 1."""
    if weight is None:
        return patches.mean(dim=2, keepdim=True), (patches.var(dim=2, keepdim=True) + _EPSILON).sqrt()
    count = weight.sum(dim=2, keepdim=True)
    mean = (patches * weight).sum(dim=2, keepdim=True) / count.clamp(min=1)
    variance = ((patches - mean) * weight).square().sum(dim=2, keepdim=True) / (count - 1).clamp(min=1)
    return mean, (variance + _EPSILON).sqrt()


def hidden_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error over the values of hidden patches that count, in float32, over all processes."""
    error = (prediction.float() - target.float()).square()
    if weight is None:
        return mean_of(error.sum(), torch.tensor(float(error.numel()), device=error.device))
    return mean_of((error * weight).sum(), weight.sum())


def in_pictures(images: Tensor, patch: Sequence[int], hidden: Tensor, prediction: Tensor) -> Tensor:
    """(3, B, C, *S): crops, crops with hidden patches blanked out, and crops with them filled in.

    Args:
        images: (B, C, *S).
        patch: Voxels of a patch along each axis.
        hidden: (B, N_hidden) places of hidden patches.
        prediction: (B, N_hidden, P * C).
    """
    patches, grid = patchify(images, patch), grid_of(images.shape[2:], patch)
    where = hidden[:, :, None].expand_as(prediction)
    masked = patches.scatter(1, where, float(images.min()))
    filled = patches.scatter(1, where, prediction.to(patches))
    return torch.stack([images, *(unpatchify(part, patch, grid) for part in (masked, filled))])


def kept_sequences(present: Tensor, drop: float, context: int, *, streams: Streams) -> Tensor:
    """(B, C) bool, which channels stay when each sequence is dropped with a probability; one that is present always stays.

    Args:
        present: (B, C) bool, false for channels of a missing sequence.
        drop: Probability.
        context: Neighbouring channels of one sequence.
        streams: Randomness of each sample.
    """
    sequences = present.shape[1] // context
    score = streams.uniform(sequences).to(present.device, non_blocking=True).masked_fill(~present[:, ::context], -1)
    kept = (score >= drop) | (score == score.amax(dim=1, keepdim=True))
    return kept.repeat_interleave(context, dim=1)
