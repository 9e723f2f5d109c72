"""Hybrid: one look at the visible patches of two overlapping crops serves a masked, a dense and a global loss.

The student fills in the hidden patches (MAE), matches a slowly moving teacher patch by patch where the crops overlap, and scan by scan
among those of other patients. In the manner of the winner of the SSL3D challenge 2025 (LatentCampus,
https://github.com/Tenbatsu24/LatentCampus; ideas alone), whose weights and temperature are the defaults. Parts: He et al., 2021,
https://arxiv.org/abs/2111.06377; dense agreement of overlapping views: Xie et al., "PixPro", 2021, https://arxiv.org/abs/2011.10043;
masked student, whole teacher: Assran et al., "Masked Siamese Networks", 2022, https://arxiv.org/abs/2204.07141.

Dense features of a student that sees a quarter of its patches: those of its visible tokens, each compared with the teacher's map of the
other, whole crop, sampled where the tissue of that token lies. Tokens of the decoder, which exist for hidden patches too, would send the
gradient through a decoder that is thrown away, and ask it to guess features and voxels at once; visible tokens train the encoder itself,
and cost nothing beyond the masked forward.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import TokenEncoder
from medssl.models.heads import projector
from medssl.models.patches import as_map, grid_of
from medssl.objectives.mae import MAE, hidden_error
from medssl.objectives.monitors import feature_std, found
from medssl.objectives.objective import Loss
from medssl.objectives.pairs import float32, strangers
from medssl.objectives.processes import gathered, mean_of
from medssl.objectives.simclr import checked_temperature, cross_nt_xent
from medssl.objectives.teacher import Teacher, checked_momentum, cosine_momentum
from medssl.views.align import Aligned, aligned, sampled
from medssl.views.augment import Augment, View, augment
from medssl.views.batch import Batch, Positives
from medssl.views.masking import Masking, PatchMask

_VIEWS = Augment(rotate_degrees=20, scale=0.2, gain=0.2, offset=0.2, noise=0.1, blur=0.1)


@dataclass(frozen=True)
class Weights:
    """How much each loss counts; what counts 0 is not computed.

    Args:
        masked: Of the error on hidden patches.
        dense: Of the distance to the teacher's features, patch by patch.
        contrast: Of the choice among the teacher's embeddings, crop by crop.

    Raises:
        ConfigError: A negative weight, or nothing but zeros.
    """

    masked: float = 1.0
    dense: float = 0.5
    contrast: float = 0.1

    def __post_init__(self) -> None:
        if min(self.masked, self.dense, self.contrast) < 0 or max(self.masked, self.dense, self.contrast) == 0:
            raise ConfigError(f"weights must be >= 0 and one of them > 0, got {self.masked}, {self.dense} and {self.contrast}")

    @property
    def taught(self) -> bool:
        """Whether a teacher is needed."""
        return max(self.dense, self.contrast) > 0


@dataclass(frozen=True)
class Glimpse:
    """Both views of a batch, one behind the other along the samples (2 B), and what of them is hidden.

    Args:
        views: The two views, of B samples each.
        images: (2 B, C, *S).
        mask: Patches that the student sees, and others that are asked for.
        weight: (2 B, N_hidden, P * C) which values of these count.
    """

    views: tuple[View, View]
    images: Tensor
    mask: PatchMask
    weight: Tensor | None


@dataclass(frozen=True)
class Lesson:
    """What the teacher sees in whole views.

    Args:
        dense: (2 B, D, *G) features of all patches.
        key: (B, 2, projection) embeddings; None where they do not count.
    """

    dense: Tensor
    key: Tensor | None


class Hybrid(MAE):
    """Masked autoencoding of two crops that also agree with a teacher, densely and as a whole.

    Args:
        encoder: The student; sees visible patches only. The teacher sees all of them.
        weights: How much each of the losses counts.
        mask_ratio: Share of patches hidden; 0.75 in MAE and the challenge.
        huber: Where the masked error turns from squared to absolute, in deviations of the target; None for the squared error of MAE.
        normalise_patches: Predict patches with zero mean and unit deviation.
        decoder_width: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        masking: Another way to hide patches, with its own ratio.
        decoded: Share of the hidden patches that is decoded and compared.
        temperature: Softmax temperature of the contrast, > 0.
        momentum: Share of the teacher that a step keeps at first; rises to 1 along a cosine.
        projection: Width of the embedding in which crops are compared.
        hidden: Width inside projector and predictors.
        views: How both views vary.
        positives: `overlap`: two crops that overlap; `same`: two views of one crop; `visit`: crops of two scans, for the contrast alone.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        *,
        weights: Weights | None = None,
        mask_ratio: float = 0.75,
        huber: float | None = 1.0,
        normalise_patches: bool = True,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        masking: Masking | None = None,
        decoded: float = 1.0,
        temperature: float = 0.5,
        momentum: float = 0.995,
        projection: int = 128,
        hidden: int = 512,
        views: Augment = _VIEWS,
        positives: Positives = "overlap",
    ) -> None:
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            normalise_patches=normalise_patches,
            decoder_width=decoder_width,
            decoder_depth=decoder_depth,
            decoder_heads=decoder_heads,
            views=views,
            masking=masking,
            decoded=decoded,
        )
        if huber is not None and huber <= 0:
            raise ConfigError(f"huber must be > 0, or null for the squared error, got {huber}")
        self.weights, self.huber, self.positives = weights or Weights(), huber, positives
        self.compares = "patients" if self.weights.contrast else "nothing"
        self.temperature, self.momentum = checked_temperature(temperature), checked_momentum(momentum)
        self.decoder.requires_grad_(self.weights.masked > 0)
        self.teacher = Teacher(encoder) if self.weights.taught else None
        if self.weights.dense:
            self.dense_predictor = projector(encoder.width, hidden, encoder.width, norm="layer")
        if self.weights.contrast:
            self.projector = projector(encoder.width, hidden, projection, norm="layer")
            self.predictor = projector(projection, hidden, projection, norm="layer")
            self.teacher_projector = Teacher(self.projector)

    def forward(self, batch: Batch) -> Loss:
        """The weighted sum of the losses that count."""
        glimpse = self.glimpse(batch)
        latent = self.encoder(glimpse.images, glimpse.mask.visible)  # (2 B, N_visible, D)
        parts, terms = [], {"feature_std": feature_std(latent.mean(dim=1))}
        if self.weights.masked:
            terms["masked"] = self.masked(latent, glimpse)
            parts.append(self.weights.masked * terms["masked"])
        lesson = self.lesson(glimpse.images)
        if lesson is not None and self.weights.dense:
            points = both_ways(glimpse, batch.corner, lesson.dense.shape[2:])
            terms["dense"], terms["overlap"] = self.dense(latent, lesson.dense, points), points.known.float().mean()
            parts.append(self.weights.dense * terms["dense"])
        if lesson is not None and lesson.key is not None:
            query = self.query(latent)
            terms["nt_xent"] = cross_nt_xent(gathered(query), gathered(lesson.key), self.temperature, patient=gathered(batch.patient))
            terms["found"] = _found(query, lesson.key, batch.patient)
            parts.append(self.weights.contrast * terms["nt_xent"])
        return Loss(torch.stack(parts).sum(), {name: term.detach() for name, term in terms.items()})

    def glimpse(self, batch: Batch) -> Glimpse:
        """Two views of the crops of a batch, each with its own mask."""
        views, masks, weights = [], [], []
        for place in range(2):
            view = augment(batch.crop(place), self.views, streams=batch.streams, masks=batch.inside(place))
            mask = self.mask(view.images, batch.streams)
            mask, weight = self.part(mask, self.weight(view.masks, mask), batch.streams)
            views.append(view)
            masks.append(mask)
            weights.append(weight)
        mask = PatchMask(*(torch.cat(part) for part in zip(*((mask.visible, mask.hidden) for mask in masks), strict=True)))
        weight = None if weights[0] is None else torch.cat([part for part in weights if part is not None])
        return Glimpse((views[0], views[1]), torch.cat([view.images for view in views]), mask, weight)

    def masked(self, latent: Tensor, glimpse: Glimpse) -> Tensor:
        """The error on hidden patches of both views, as far as they show the body."""
        grid = grid_of(glimpse.images.shape[2:], self.encoder.patch)
        prediction = self.decoder(latent, glimpse.mask.visible, glimpse.mask.hidden, grid)
        target = self.target(glimpse.images, glimpse.mask, glimpse.weight)
        if self.huber is None:
            return hidden_error(prediction, target, glimpse.weight)
        return huber_error(prediction, target, glimpse.weight, delta=self.huber)

    @torch.no_grad()
    def lesson(self, images: Tensor) -> Lesson | None:
        """What the teacher sees in whole images (2 B, C, *S); None where there is no teacher."""
        if self.teacher is None:
            return None
        tokens = self.teacher.module(images)
        key = by_sample(self.teacher_projector.module(tokens.mean(dim=1))) if self.weights.contrast else None
        return Lesson(as_map(tokens, grid_of(images.shape[2:], self.encoder.patch)), key)

    def query(self, latent: Tensor) -> Tensor:
        """(2 B, N_visible, D) -> (B, 2, projection)."""
        return by_sample(self.predictor(self.projector(latent.mean(dim=1))))

    def dense(self, latent: Tensor, taught: Tensor, points: Aligned) -> Tensor:
        """One minus the cosine of the student's visible tokens with the teacher's features of the same tissue in the other view.

        Args:
            latent: (2 B, N_visible, D) of the student.
            taught: (2 B, D, *G) of the teacher.
            points: Where the visible patches of each view lie in the other one.
        """
        other = torch.cat(taught.chunk(2)[::-1])
        return dense_distance(self.dense_predictor(latent), sampled(other.float(), points.positions), points.known)

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        momentum = cosine_momentum(self.momentum, progress)
        if self.teacher is not None:
            self.teacher.follow(self.encoder, momentum)
        if self.weights.contrast:
            self.teacher_projector.follow(self.projector, momentum)

    def picture(self, batch: Batch) -> Tensor | None:  # type: ignore[override]  # a decoder that is not trained has nothing to show
        """That of the masked autoencoder, where there is one."""
        return super().picture(batch) if self.weights.masked else None


def both_ways(glimpse: Glimpse, corner: Tensor, grid: tuple[int, ...]) -> Aligned:
    """Where the visible patches of each view lie in the other: (2 B, N_visible) points.

    Args:
        glimpse: The views.
        corner: (B, V, D) where crops begin; V is 1 where both views are of one crop.
        grid: Patches along each axis.
    """
    (first, second), corners = glimpse.views, (corner[:, 0], corner[:, -1])
    there = aligned(first, second, grid, corner=corners[0], other_corner=corners[1])
    back = aligned(second, first, grid, corner=corners[1], other_corner=corners[0])
    points = Aligned(torch.cat([there.positions, back.positions]), torch.cat([there.known, back.known]))
    return points.at(glimpse.mask.visible)


def huber_error(prediction: Tensor, target: Tensor, weight: Tensor | None, *, delta: float) -> Tensor:
    """Mean Huber error over the values of hidden patches that count, in float32, over all processes: squared (halved) up to `delta`."""
    error = F.huber_loss(prediction.float(), target.float(), reduction="none", delta=delta)
    counts = torch.ones_like(error) if weight is None else weight
    return mean_of((error * counts).sum(), counts.sum())


def dense_distance(features: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean of one minus the cosine of features (B, N, D) and targets, where `known` (B, N), in float32, over all processes.

    0 where nothing is known.
    """
    with float32(features):
        distance = 1 - F.cosine_similarity(features.float(), targets.float(), dim=2)
        return mean_of((distance * known).sum(), known.sum())


def by_sample(rows: Tensor) -> Tensor:
    """Rows of two views (2 B, D), one behind the other -> (B, 2, D)."""
    return rearrange(rows, "(v b) d -> b v d", v=2)


def _found(query: Tensor, key: Tensor, patient: Tensor) -> Tensor:
    """Share of queries closest to their own key among those of other patients, of this process."""
    choices = strangers(patient, query) | torch.eye(len(query), dtype=torch.bool, device=query.device)
    query, key = F.normalize(query.detach().float(), dim=2), F.normalize(key.float(), dim=2)
    return torch.stack([found(query[:, view] @ key[:, 1 - view].T, choices) for view in range(2)]).mean()
