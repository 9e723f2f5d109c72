"""SimCLR: two views of one crop attract, views of different patients repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, https://arxiv.org/abs/2002.05709. Variants of
the loss: decoupled, Yeh et al., 2022, https://arxiv.org/abs/2110.06848; debiased, Chuang et al., 2020, https://arxiv.org/abs/2007.00224;
hard negatives, Robinson et al., 2021, https://arxiv.org/abs/2010.04592.
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Contrast:
    """How positives and negatives weigh; nothing but equation 1 of SimCLR by default.

    Args:
        decoupled: The positive leaves the denominator, which helps small batches (DCL, equation 6 of Yeh et al.).
        sigma: > 0 gives positives that lie far apart more weight (DCLW, section 3.3 of Yeh et al., which takes 0.5); 0: all alike.
        beta: How much more close negatives weigh (equation 4 of Robinson et al.), in units of 1 / temperature; 0: all alike.
        tau_plus: Share of negatives that show the same as the anchor, subtracted (equation 8 of Chuang et al.); 0: none.

    Raises:
        ConfigError: A value out of range.
    """

    decoupled: bool = False
    sigma: float = 0.0
    beta: float = 0.0
    tau_plus: float = 0.0

    def __post_init__(self) -> None:
        if min(self.sigma, self.beta) < 0 or not 0 <= self.tau_plus < 1:
            raise ConfigError(f"sigma and beta must be >= 0, tau_plus in [0, 1), got {self.sigma}, {self.beta} and {self.tau_plus}")


class SimCLR(Objective):
    """Contrast two random views of each crop.

    Args:
        encoder: Its mean-pooled features are projected and compared.
        temperature: Softmax temperature, > 0.
        projection: Width of the embedding in which views are compared.
        layers: Linear layers of the projector.
        norm: What normalises between them.
        contrast: How positives and negatives weigh.
        views: How views vary.
        positives: Which crops the two views are of.

    Raises:
        ConfigError: A temperature of 0 or less.
    """

    compares = "patients"

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        projection: int = 128,
        layers: int = 2,
        norm: Norm = "none",
        contrast: Contrast | None = None,
        views: Augment = STRONG,
        positives: Positives = "same",
    ) -> None:
        super().__init__(encoder)
        self.positives = positives
        self.temperature = checked_temperature(temperature)
        self.contrast = contrast or Contrast()
        self.views = views
        self.projector = projector(encoder.width, encoder.width, projection, layers=layers, norm=norm)

    def forward(self, batch: Batch) -> Loss:
        """NT-Xent over two views of each sample."""
        views = two_views(batch, self.views)
        z = by_view(self.embed, views)
        loss = nt_xent(gathered(z), self.temperature, patient=gathered(batch.patient), contrast=self.contrast)
        return Loss(loss, {"nt_xent": loss.detach()})

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, projection)."""
        z: Tensor = self.projector(self.encoder.pooled(images))
        return z


def checked_temperature(temperature: float) -> float:
    """The temperature.

    Raises:
        ConfigError: It is 0 or less.
    """
    if temperature <= 0:
        raise ConfigError(f"temperature must be > 0, got {temperature}")
    return temperature


def nt_xent(z: Tensor, temperature: float, *, patient: Tensor | None = None, contrast: Contrast | None = None) -> Tensor:
    """Normalised temperature-scaled cross entropy, equation 1 of SimCLR, in float32.

    Args:
        z: (B, 2, D) embeddings; the two rows of a sample are positives.
        temperature: Softmax temperature, > 0.
        patient: (B,) number of the patient; samples of one patient are no negatives. None: each sample is of its own.
        contrast: How positives and negatives weigh.

    Returns:
        The mean over the anchors that have a negative; 0 where none has.
    """
    with float32(z):
        views = F.normalize(rearrange(z.float(), "b v d -> (v b) d"), dim=1)
        similarity = views @ views.T / temperature  # (2B, 2B)
        partner = torch.arange(2 * len(z), device=z.device).roll(len(z))
        positive = similarity.gather(1, partner[:, None])[:, 0]
        negative = strangers(patient, z).repeat(2, 2)
        return _contrasted(similarity, positive, negative, temperature, contrast or Contrast())


def cross_nt_xent(
    queries: Tensor, keys: Tensor, temperature: float, *, patient: Tensor | None = None, contrast: Contrast | None = None
) -> Tensor:
    """Each query against the keys of the other view, in float32; with queries that are the keys, the symmetric loss of two modalities.

    Args:
        queries: (B, 2, D).
        keys: (B, 2, D); the positive of query (b, v) is key (b, 1 - v), its negatives are keys (c, 1 - v).
        temperature: Softmax temperature, > 0.
        patient: (B,) number of the patient; samples of one patient are no negatives. None: each sample is of its own.
        contrast: How positives and negatives weigh.

    Returns:
        The mean over the queries that have a negative; 0 where none has.
    """
    with float32(queries):
        query, key = F.normalize(queries.float(), dim=2), F.normalize(keys.float().flip(1), dim=2)
        similarity = torch.einsum("bvd,cvd->vbc", query, key) / temperature
        positive = similarity.diagonal(dim1=1, dim2=2).flatten()
        negative = strangers(patient, queries).repeat(2, 1)
        return _contrasted(similarity.flatten(0, 1), positive, negative, temperature, contrast or Contrast())


def _contrasted(similarity: Tensor, positive: Tensor, negative: Tensor, temperature: float, contrast: Contrast) -> Tensor:
    """Mean over anchors of: log of what repels, less what attracts.

    Args:
        similarity: (A, M) cosines of anchors and others, over the temperature.
        positive: (A,) those of each anchor with its positive.
        negative: (A, M) bool, which others are negatives.
        temperature: Softmax temperature.
        contrast: How they weigh.
    """
    rows = negative.any(dim=1)
    negative = negative | ~rows[:, None]  # without one, all anchors count 0; to leave them out would wait for the device
    repelling = _repelling(similarity, positive, negative, temperature, contrast)
    if not contrast.decoupled:
        repelling = torch.logaddexp(positive, repelling)
    if contrast.sigma:
        positive = positive * (2 - len(positive) * (positive * temperature / contrast.sigma).softmax(dim=0))
    return ((repelling - positive) * rows).sum() / rows.sum().clamp(min=1)


def _repelling(similarity: Tensor, positive: Tensor, negative: Tensor, temperature: float, contrast: Contrast) -> Tensor:
    """(A,) log of the sum over negatives of exp(similarity), weighted by hardness and without the share of false ones."""

    def log_sum(scale: float) -> Tensor:
        return (scale * similarity).masked_fill(~negative, float("-inf")).logsumexp(dim=1)

    log_count = negative.sum(dim=1).log()
    total = log_sum(1 + contrast.beta) - log_sum(contrast.beta) + log_count
    if not contrast.tau_plus:
        return total
    least = log_count - 1 / temperature  # all negatives opposite the anchor
    false = math.log(contrast.tau_plus) + log_count + positive - total  # log of their share of the total
    true = total + torch.log1p(-false.clamp(max=-_TINY).exp()) - math.log(1 - contrast.tau_plus)
    return torch.where(false < -_TINY, torch.maximum(true, least), least)


_TINY = 1e-6
