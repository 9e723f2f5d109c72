"""What methods with two views share: the views, a network over them, and which samples are strangers to each other."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch

STRONG = Augment(rotate_degrees=30, scale=0.35, shift=0.15, gain=0.4, offset=0.4, noise=0.2, blur=0.3)
"""Views that differ enough for the comparison to teach something."""


def two_views(batch: Batch, settings: Augment) -> Tensor:
    """(B, 2, C, *S): two random views of each sample, of its two crops where it has two."""
    return torch.stack([augment(batch.crop(view), settings, streams=batch.streams).images for view in range(2)], dim=1)


def by_view(network: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
    """A network over (B, V, ...), all views at once -> (B, V, D)."""
    rows = network(rearrange(views, "b v ... -> (b v) ..."))
    return rearrange(rows, "(b v) d -> b v d", v=views.shape[1])


def strangers(patient: Tensor | None, samples: Tensor) -> Tensor:
    """(B, B) bool: which samples are of different patients, and so may be negatives of each other.

    Args:
        patient: (B,) number of the patient; None where each sample is of its own.
        samples: (B, ...), for their number and device.
    """
    number = torch.arange(len(samples)) if patient is None else patient
    number = number.to(samples.device)
    return number[:, None] != number


def float32(tensor: Tensor) -> torch.autocast:
    """Where losses are computed: no automatic cast to fewer bits."""
    return torch.autocast(tensor.device.type, enabled=False)
