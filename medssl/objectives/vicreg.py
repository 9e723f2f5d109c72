"""VICReg: two views agree, each dimension keeps its variance, dimensions do not repeat each other; no negatives.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization", 2021, https://arxiv.org/abs/2105.04906.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import Norm, projector
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.pairs import STRONG, by_view, float32, two_views
from medssl.objectives.processes import gathered
from medssl.views.augment import Augment
from medssl.views.batch import Batch, Positives


class VICReg(Objective):
    """Regularise the embeddings of two views, as algorithm 1 of the paper does.

    Args:
        encoder: Its mean-pooled features are expanded.
        invariance: Weight of the distance between views; 25 in the paper.
        variance: Weight of the hinge on the deviation of each dimension; 25 in the paper.
        covariance: Weight of the squared covariances of dimensions; 1 in the paper.
        expansion: Width of the embedding; 8192 in the paper.
        norm: What normalises inside the expander; the paper's `batch` needs large batches on each process.
        views: How views vary.
        positives: Which crops the two views are of.

    Raises:
        ConfigError: A negative weight.
    """

    compares = "samples"

    def __init__(
        self,
        encoder: Encoder,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        expansion: int = 1024,
        norm: Norm = "layer",
        views: Augment = STRONG,
        positives: Positives = "same",
    ) -> None:
        super().__init__(encoder)
        if min(invariance, variance, covariance) < 0:
            raise ConfigError(f"invariance, variance and covariance must be >= 0, got {invariance}, {variance} and {covariance}")
        self.positives = positives
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.views = views
        self.expander = projector(encoder.width, expansion, expansion, layers=3, norm=norm)

    def forward(self, batch: Batch) -> Loss:
        """The weighted sum of the three terms over the whole batch."""
        views = two_views(batch, self.views)
        z = gathered(by_view(self.embed, views)).float()
        with float32(z):
            terms = {"invariance": invariance(z), "variance": variance(z), "covariance": covariance(z)}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, expansion)."""
        z: Tensor = self.expander(self.encoder.pooled(images))
        return z


def invariance(z: Tensor) -> Tensor:
    """Mean squared difference of the two views of (B, 2, D)."""
    return F.mse_loss(z[:, 0], z[:, 1])


def variance(z: Tensor) -> Tensor:
    """How far the deviations of dimensions fall short of 1, mean over dimensions, sum over the views of (B, 2, D); near 2 in a collapse."""
    spread = (_centred(z).square().sum(dim=0) / max(len(z) - 1, 1) + _EPSILON).sqrt()  # (2, D)
    return F.relu(1 - spread).mean(dim=1).sum()


def covariance(z: Tensor) -> Tensor:
    """Squared covariances of different dimensions, divided by D, sum over the views of (B, 2, D)."""
    centred = _centred(z)
    matrix = torch.einsum("bvd,bve->vde", centred, centred) / max(len(z) - 1, 1)
    squares = matrix.square()
    return (squares.sum() - squares.diagonal(dim1=1, dim2=2).sum()) / z.shape[2]


def _centred(z: Tensor) -> Tensor:
    return z - z.mean(dim=0)


_EPSILON = 1e-4  # of the paper: the root keeps a finite gradient
