"""MoCo v3: a student's views find the other view among the views of a slowly moving teacher.

Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", 2021, https://arxiv.org/abs/2104.02057.
"""

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import Norm, projector
from medssl.models.vit import ViT
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.pairs import STRONG, by_view, two_views
from medssl.objectives.processes import gathered
from medssl.objectives.simclr import checked_temperature, cross_nt_xent
from medssl.objectives.teacher import Teacher, checked_momentum, cosine_momentum
from medssl.views.augment import Augment
from medssl.views.batch import Batch, Positives


class MoCo(Objective):
    """Contrast the student's queries with the teacher's keys of the whole batch (algorithm 1 of the paper).

    Args:
        encoder: The student; its mean-pooled features are projected.
        temperature: Softmax temperature, > 0; 0.2 in the paper.
        momentum: Share of the teacher that a step keeps at first; rises to 1. 0.99 in the paper.
        projection: Width of queries and keys; 256 in the paper.
        hidden: Width inside projector and predictor; 4096 in the paper.
        norm: What normalises inside them; the paper's `batch` needs large batches on each process.
        freeze_patches: Leave the ViT's patch embedding as it was drawn, which keeps training stable (section 4.2).
        views: How views vary.
        positives: Which crops the two views are of.

    Raises:
        ConfigError: A value out of range, or frozen patches of an encoder that has none.
    """

    compares = "patients"

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        projection: int = 256,
        hidden: int = 1024,
        norm: Norm = "layer",
        freeze_patches: bool = False,
        views: Augment = STRONG,
        positives: Positives = "same",
    ) -> None:
        super().__init__(encoder)
        self.positives = positives
        self.temperature, self.momentum = checked_temperature(temperature), checked_momentum(momentum)
        self.views = views
        if freeze_patches:
            _freeze_patches(encoder)
        self.projector = projector(encoder.width, hidden, projection, layers=3, norm=norm)
        self.predictor = projector(projection, hidden, projection, norm=norm)
        self.teacher, self.teacher_projector = Teacher(encoder), Teacher(self.projector)

    def forward(self, batch: Batch) -> Loss:
        """Cross entropy of queries over the other view's keys, both ways, times twice the temperature."""
        views = two_views(batch, self.views)
        queries, keys = by_view(self.query, views), by_view(self.key, views)
        cross_entropy = cross_nt_xent(gathered(queries), gathered(keys), self.temperature, patient=gathered(batch.patient))
        return Loss(4 * self.temperature * cross_entropy, {"moco": cross_entropy.detach()})  # a sum over the two views, not their mean

    def query(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, projection) of the student."""
        query: Tensor = self.predictor(self.projector(self.encoder.pooled(images)))
        return query

    @torch.no_grad()
    def key(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, projection) of the teacher, without a gradient."""
        key: Tensor = self.teacher_projector.module(self.teacher.module.pooled(images))
        return key

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        momentum = cosine_momentum(self.momentum, progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_projector.follow(self.projector, momentum)


def _freeze_patches(encoder: Encoder) -> None:
    if not isinstance(encoder, ViT):
        raise ConfigError(f"freeze_patches needs a ViT, got {type(encoder).__name__}; set it to false")
    encoder.embed.requires_grad_(False)
