"""SimCLR: two views of one crop attract, views of different crops repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, https://arxiv.org/abs/2002.05709.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import projector
from medssl.objectives.objective import Loss, Objective
from medssl.views.augment import Augment, augment


class SimCLR(Objective):
    """Contrast two random views of each crop.

    Args:
        encoder: Its mean-pooled features are projected and compared.
        temperature: Softmax temperature, > 0.
        projection: Width of the embedding in which views are compared.
        views: How views vary.

    Raises:
        ConfigError: A temperature of 0 or less.
    """

    def __init__(self, encoder: Encoder, *, temperature: float = 0.2, projection: int = 128, views: Augment | None = None) -> None:
        super().__init__(encoder)
        if temperature <= 0:
            raise ConfigError(f"temperature must be > 0, got {temperature}")
        self.temperature = temperature
        self.views = views or Augment(rotate_degrees=30, scale=0.35, shift=0.15, gain=0.4, offset=0.4, noise=0.2, blur=0.3)
        self.projector = projector(encoder.width, encoder.width, projection)

    def forward(self, images: Tensor, generator: torch.Generator) -> Loss:
        """NT-Xent over two views of crops (B, C, *S)."""
        pair = [augment(images, None, self.views, generator=generator)[0] for _ in range(2)]
        z = torch.stack([self.projector(self.encoder.pooled(view)) for view in pair], dim=1)
        loss = nt_xent(z, self.temperature)
        return Loss(loss, {"nt_xent": loss.detach(), "feature_std": F.normalize(z.detach().float(), dim=2).std(dim=0).mean()})


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy, equation 1 of the paper.

    Args:
        z: (B, 2, D) embeddings; the two rows of a sample are positives.
        temperature: Softmax temperature, > 0.
    """
    z = F.normalize(rearrange(z.float(), "b v d -> (v b) d"), dim=1)
    batch = len(z) // 2
    similarity = z @ z.T / temperature  # (2B, 2B)
    similarity = similarity.masked_fill(
        torch.eye(2 * batch, dtype=torch.bool, device=z.device), float("-inf")
    )  # no view is its own negative
    positives = torch.arange(2 * batch, device=z.device).roll(batch)
    return F.cross_entropy(similarity, positives)
