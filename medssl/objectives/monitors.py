"""What shows in the logs whether features have collapsed to a point, before any labelled scan tells."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def feature_std(features: Tensor) -> Tensor:
    """Deviation over samples of features (B, D) of unit length, times the root of D: about 1 where they fill the sphere, 0 at a point.

    Chen and He, "Exploring Simple Siamese Representation Learning", 2020, figure 2, https://arxiv.org/abs/2011.10566.
    """
    scaled = F.normalize(features.float(), dim=1) * math.sqrt(features.shape[1])
    return scaled.std(dim=0, correction=0).mean()


@torch.no_grad()
def found(similar: Tensor, choices: Tensor) -> Tensor:
    """Share of rows of (N, N) whose partner, on the diagonal, is the closest of what they choose from; 0 without rows that have a choice.

    Args:
        similar: (N, N) how close each row is to each column.
        choices: (N, N) bool, the diagonal included.
    """
    if not len(similar):
        return similar.new_zeros(())
    best, choosing = similar.masked_fill(~choices, float("-inf")).amax(dim=1), choices.sum(dim=1) > 1
    return ((similar.diagonal() >= best) & choosing).float().sum() / choosing.sum().clamp(min=1)
