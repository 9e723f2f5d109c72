"""What a sample is, and how it is read of a scan: a crop around a centre, or all of it resized.

Nothing is read before it is needed: a crop touches its own pages of a mapped file, and is cast straight into the tensor of its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from medssl.data.case import Box, Case, Target
from medssl.data.entry import decode
from medssl.data.window import padded, window_at
from medssl.errors import ConfigError, ManifestError


class Sample(TypedDict):
    """One crop, or a whole slice, volume or bag of slices resized to it.

    `image` (C, *crop) float32, or (N, C, *crop) of a bag of N slices; `lesion` (1, *crop) float32 (zeros where not known, and of what is
    resized): 1 where lesion is, or the number of the class, the first is 1; `label` 1 lesion, 0 none, or the index of the class, or
    (classes,) of 0 and 1, and -1 where it is not known; `number` of the sample in the run. A batch is the same with an axis more in front.
    """

    image: Tensor
    lesion: Tensor
    label: Tensor
    number: Tensor


@dataclass(frozen=True)
class Crops:
    """What a crop is.

    Args:
        size: Voxels along each axis; two numbers make slices along K, three make volumes. A classifier sees whole slices or volumes
            resized to it.
        context: Neighbouring slices stacked as channels, odd; only for two axes.
        lesion_fraction: Share of samples centred on lesion, where lesions are known; each class that masks tell apart is equally likely.
            Of bags, the share from scans with lesion.
        balanced: The other samples are drawn evenly over classes, not over scans; scans without a label are not drawn then.
        bag: Slices of one scan in a sample, spread over the scan, for networks that pool slices; 1 for single slices and volumes.

    Raises:
        ConfigError: A value out of range.
    """

    size: tuple[int, ...]
    context: int = 1
    lesion_fraction: float = 0.5
    balanced: bool = False
    bag: int = 1

    def __post_init__(self) -> None:
        if len(self.size) not in (2, 3):
            raise ConfigError(f"crop size takes 2 or 3 numbers, got {list(self.size)}")
        if self.context % 2 == 0 or (self.context > 1 and len(self.size) == 3):
            raise ConfigError(f"context must be odd, and 1 for 3D crops, got {self.context}")
        if not 0 <= self.lesion_fraction <= 1:
            raise ConfigError(f"lesion_fraction must be between 0 and 1, got {self.lesion_fraction}")
        if self.bag < 1 or (self.bag > 1 and len(self.size) == 3):
            raise ConfigError(f"bag must be >= 1, and 1 for 3D crops, got {self.bag}")

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.size)

    @property
    def extent(self) -> tuple[int, int, int]:
        """Voxels along I, J, K; a slice has one along K."""
        return self.size[0], self.size[1], self.size[2] if len(self.size) == 3 else 1


Fit = Callable[[Tensor, Sequence[int]], Tensor]
"""What resizes images (B, C, *S) to a size along each axis."""


def any_centre(case: Case, crops: Crops, generator: np.random.Generator, box: Box | None = None) -> Sequence[int]:
    """A centre whose crop lies inside the scan, or the middle along axes where the scan is smaller than the crop.

    Args:
        case: The scan.
        crops: Size of the crop.
        generator: Of what is drawn.
        box: The centre lies in it where a crop inside the scan can have its centre there; None for all of the scan.
    """
    centre = []
    sides = [(0, length) for length in case.shape[1:]] if box is None else box
    for length, width, (first, end) in zip(case.shape[1:], crops.extent, sides, strict=True):
        low = min(width // 2, length // 2)
        high = max(low + 1, length - (width - width // 2) + 1)
        low = min(max(low, first), high - 1)
        centre.append(int(generator.integers(low, max(low + 1, min(high, end)))))
    return centre


def lesion_centre(case: Case, crops: Crops, generator: np.random.Generator, *, value: int | None = None) -> Sequence[int]:
    """A centre on a lesion slice (each slice equally likely), near a random voxel of lesion or of one value of the mask."""
    mask, k = case.mask, int(generator.choice(case.lesion_slices if value is None else case.slices_of(value)))
    if mask is None:
        raise ManifestError("bad_label", f"scan {case.row.scan_id} lists lesion slices but has no mask")
    plane = (slice(0, 1), slice(0, case.shape[1]), slice(0, case.shape[2]), slice(k, k + 1))
    points = np.argwhere(mask.only(plane, mask.values if value is None else (value,))[0, :, :, 0])
    i, j = points[generator.integers(len(points))]
    widths = np.array(crops.extent)
    jitter = generator.integers(-widths // 4, widths // 4 + 1)
    jitter[2] *= crops.spatial_dims == 3
    return [int(place) for place in np.array((i, j, k)) + jitter]


def empty_batch(count: int, channels: int, crops: Crops, *, masks: bool = True) -> Sample:
    """A batch to be filled; lesions are 0 and labels not known. Without `masks`, one zero in memory stands for all lesions."""
    shape, bag = (count, 1, *crops.size), (crops.bag,) if crops.bag > 1 else ()
    return Sample(
        image=torch.from_numpy(np.empty((count, *bag, channels * crops.context, *crops.size), np.float32)),  # numpy asks for huge pages
        lesion=torch.zeros(shape) if masks else torch.zeros(1).expand(shape),
        label=torch.full((count,), -1),
        number=torch.arange(count),
    )


def fill(image: Tensor, lesion: Tensor, case: Case, centre: Sequence[int], crops: Crops) -> Target:
    """Put the crop around a centre into tensors: moved inside the scan where it can be, edge-padded where the scan is smaller.

    Args:
        image: (C * context, *crop) to be filled.
        lesion: (1, *crop) zeros, to be filled where there is lesion.
        case: The scan.
        centre: Voxel along I, J, K.
        crops: Size and neighbouring slices.

    Returns:
        The label of the crop, as `Classes.target` gives it: its own where the lesions of the scan are known.
    """
    read_crop(image, case, centre, crops)
    window, margins = window_at(case.shape, centre, crops.extent, keep=_keep(crops))
    marked = case.class_mask(window)
    if marked is not None and marked.any():
        lesion.copy_(torch.from_numpy(padded(marked, margins)).view(lesion.shape))
    return case.part_target(() if marked is None else np.unique(marked).tolist()) if case.known else case.target


def read_crop(image: Tensor, case: Case, centre: Sequence[int], crops: Crops) -> None:
    """Put the image of the crop around a centre into a tensor (C * context, *crop)."""
    i, j, depth = crops.extent
    window, margins = window_at(case.shape, centre, (i, j, depth if depth > 1 else crops.context), keep=_keep(crops))
    stored = torch.from_numpy(padded(case.image[window], margins))
    if crops.spatial_dims == 2:
        image, stored = image.view(case.shape[0], crops.context, i, j), stored.permute(0, 3, 1, 2)  # K -> context
    image.copy_(stored)  # torch casts and moves float16 in one pass


def fill_whole(image: Tensor, case: Case, places: Sequence[int], crops: Crops, fit: Fit) -> Target:
    """Put a whole slice, bag of slices or volume into a tensor, resized to the size of a crop.

    Args:
        image: (C * context, *crop) to be filled, or (N, C * context, *crop) of a bag of N slices.
        case: The scan.
        places: Along K, of the slice or of each slice of the bag; a volume is read whole.
        crops: Size and neighbouring slices.
        fit: What resizes.

    Returns:
        The label of the slice, or of the scan for bags and volumes.
    """
    if crops.spatial_dims == 3:
        read = torch.from_numpy(decode(case.image))[None]
    else:
        read = torch.stack([_plane(case, k, crops.context) for k in places])
    image.copy_(fit(read, crops.size).view(image.shape))
    return case.slice_target(places[0]) if crops.spatial_dims == 2 and crops.bag == 1 else case.target


def _plane(case: Case, k: int, context: int) -> Tensor:
    """(C * context, I, J) of slice `k` and its neighbours."""
    _, i, j, _ = case.shape
    window, margins = window_at(case.shape, (i // 2, j // 2, k), (i, j, context), keep=(True, True, False))
    return torch.from_numpy(decode(padded(case.image[window], margins))).permute(0, 3, 1, 2).flatten(0, 1)


def spread(slices: int, count: int, generator: np.random.Generator) -> list[int]:
    """A random slice of each of `count` equal parts of a scan; those of a scan with fewer slices are repeated."""
    places = (np.arange(count) + generator.random(count)) * slices / count
    return [int(place) for place in places]


def corner_of(case: Case, centre: Sequence[int], crops: Crops) -> list[int]:
    """The first voxel of the crop around a centre along I, J, K; negative where the scan is smaller than the crop."""
    window, margins = window_at(case.shape, centre, crops.extent, keep=_keep(crops))
    return [part.start - before for part, (before, _) in zip(window[1:], margins[1:], strict=True)]


def _keep(crops: Crops) -> tuple[bool, bool, bool]:
    """Axes along which crops are moved inside the scan: all, but for neighbours of a slice."""
    return True, True, crops.extent[2] > 1


def cut(case: Case, centre: Sequence[int], crops: Crops) -> Sample:
    """The crop around a centre."""
    batch = empty_batch(1, case.shape[0], crops)
    label = torch.tensor(fill(batch["image"][0], batch["lesion"][0], case, centre, crops))
    return Sample(
        image=batch["image"][0], lesion=batch["lesion"][0], label=label[0] if len(label) == 1 else label, number=batch["number"][0]
    )
