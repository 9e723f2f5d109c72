"""What an objective gets: crops that belong together, and what is known of them without a label."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medssl.views.streams import Streams

Positives = Literal["same", "overlap", "visit"]
"""Which crops belong together: one crop alone, two overlapping crops of a scan, or crops of two scans of a patient."""


@dataclass(frozen=True)
class Batch:
    """Unlabelled crops.

    Args:
        images: (B, V, C, *S); the V crops of a sample belong together, 1 for positives `same`, else 2.
        streams: Randomness of each sample.
        patient: (B,) number of the patient; samples of one patient are no negatives of each other.
        corner: (B, V, D) voxel of the scan where the crop begins along each of its D axes; NaN where the V crops share no scan.
        level: (B, V, C) values at or below it are background, outside the body or defaced.
        present: (B, V, C) bool, false for a sequence that the scan lacks.
        text: (B, L) bytes of a sentence on the scan, 0 behind its end; None where no objective asked for it.
    """

    images: Tensor
    streams: Streams
    patient: Tensor
    corner: Tensor
    level: Tensor
    present: Tensor
    text: Tensor | None = None

    @classmethod
    def of(cls, images: Tensor, streams: Streams) -> "Batch":
        """Crops (B, C, *S) of which nothing else is known: each of its own patient, all of it inside the body."""
        batch, channels, dims, device = len(images), images.shape[1], images.ndim - 2, images.device
        return cls(
            images=images[:, None],
            streams=streams,
            patient=torch.arange(batch, device=device),
            corner=torch.zeros(batch, 1, dims, device=device),
            level=torch.full((batch, 1, channels), float("-inf"), device=device),
            present=torch.ones(batch, 1, channels, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        """B."""
        return len(self.images)

    def crop(self, view: int) -> Tensor:
        """(B, C, *S) of one view; that of the only one where there is one."""
        return self.images[:, min(view, self.images.shape[1] - 1)]

    def inside(self, view: int) -> Tensor:
        """(B, C, *S) bool: voxels of one view that show the body in a sequence that is there."""
        images = self.crop(view)
        place = min(view, self.images.shape[1] - 1)
        shape = (*images.shape[:2], *(1 for _ in images.shape[2:]))
        return (images > self.level[:, place].view(shape)) & self.present[:, place].view(shape)
