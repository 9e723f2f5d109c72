"""Triplet loss: an anchor lies nearer to its positive than to a negative, by a margin; negatives are mined in the batch.

Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015, https://arxiv.org/abs/1503.03832.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import Norm, projector
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.pairs import STRONG, by_view, float32, strangers, two_views
from medssl.objectives.processes import gathered
from medssl.views.augment import Augment
from medssl.views.batch import Batch, Positives


class Triplet(Objective):
    """Each view of a crop is an anchor, the other view its positive, a semi-hard view of another patient its negative.

    Args:
        encoder: Its mean-pooled features are projected onto a sphere.
        margin: By how much the squared distance to a negative must exceed that to the positive, > 0; 0.2 in the paper.
        projection: Width of the embedding; 128 in the paper.
        layers: Linear layers of the projector.
        norm: What normalises between them.
        views: How views vary.
        positives: Which crops the two views are of.

    Raises:
        ConfigError: A margin of 0 or less.
    """

    compares = "patients"

    def __init__(
        self,
        encoder: Encoder,
        *,
        margin: float = 0.2,
        projection: int = 128,
        layers: int = 2,
        norm: Norm = "none",
        views: Augment = STRONG,
        positives: Positives = "same",
    ) -> None:
        super().__init__(encoder)
        if margin <= 0:
            raise ConfigError(f"margin must be > 0, got {margin}")
        self.positives, self.margin = positives, margin
        self.views = views
        self.projector = projector(encoder.width, encoder.width, projection, layers=layers, norm=norm)

    def forward(self, batch: Batch) -> Loss:
        """The triplet loss over the whole batch."""
        views = two_views(batch, self.views)
        z = by_view(self.embed, views)
        loss = triplet(gathered(z), self.margin, patient=gathered(batch.patient))
        return Loss(loss, {"triplet": loss.detach()})

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, projection)."""
        z: Tensor = self.projector(self.encoder.pooled(images))
        return z


def triplet(z: Tensor, margin: float, *, patient: Tensor | None = None) -> Tensor:
    """Hinge on squared distances on the unit sphere (equation 3 of the paper), in float32.

    The negative is semi-hard (section 3.2): the nearest one that lies further away than the positive; where none does, the furthest.

    Args:
        z: (B, 2, D) embeddings; the two rows of a sample are positives.
        margin: > 0.
        patient: (B,) number of the patient; samples of one patient are no negatives. None: each sample is of its own.

    Returns:
        The mean over the anchors that have a negative; 0 where none has.
    """
    with float32(z):
        views = F.normalize(rearrange(z.float(), "b v d -> (v b) d"), dim=1)
        distance = 2 - 2 * views @ views.T  # (2B, 2B)
    partner = torch.arange(2 * len(z), device=z.device).roll(len(z))
    negative = strangers(patient, z).repeat(2, 2)
    rows = negative.any(dim=1)
    negative = negative | ~rows[:, None]  # without one, all anchors count 0; to leave them out would wait for the device
    positive = distance.gather(1, partner[:, None])
    further = negative & (distance > positive)
    semi_hard = distance.masked_fill(~further, float("inf")).amin(dim=1)
    furthest = distance.masked_fill(~negative, float("-inf")).amax(dim=1)
    chosen = torch.where(further.any(dim=1), semi_hard, furthest)
    return (F.relu(positive[:, 0] - chosen + margin) * rows).sum() / rows.sum().clamp(min=1)
