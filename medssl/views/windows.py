"""Small crops at random places of larger ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views.streams import Streams


def window(images: Tensor, size: Sequence[int], *, streams: Streams) -> Tensor:
    """(B, C, *S) -> (B, C, *size), at a place of its own in each sample.

    Args:
        images: (B, C, *S).
        size: Voxels along each axis.
        streams: Randomness of each sample.

    Raises:
        ConfigError: A window larger than the crop.
    """
    room = torch.tensor(images.shape[2:]) - torch.tensor(size)
    if room.min() < 0:
        raise ConfigError(f"a window of {list(size)} voxels does not fit into a crop of {list(images.shape[2:])}")
    starts = (streams.uniform(len(size)) * (room + 1)).long().minimum(room)  # (B, D)
    places = [tuple(slice(start, start + length) for start, length in zip(row, size, strict=True)) for row in starts.tolist()]
    return torch.stack([image[(slice(None), *place)] for image, place in zip(images, places, strict=True)])
