"""Random crops of a store: every sample is a function of the seed and its number, so a run can be repeated and resumed.

Nothing is read before it is needed: a crop touches its own pages of a mapped file. Crops of a batch are cast straight into its tensor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import Dataset, Sampler

from medssl.data.entry import Bits, Stored
from medssl.data.manifest import ManifestRow
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError

_NEGATIVE = frozenset({"normal", "healthy", "none", "negative", "control", "0", "no", "false"})

_NUMBERS_A_SAMPLE = 1 << 20  # far more than a sample draws

Value = TypeVar("Value", bound=np.generic)
Window = tuple[slice, slice, slice, slice]


class Arrays(Protocol):
    """Where scans are: a store."""

    def image(self, row: ManifestRow) -> Stored:
        """The stored (C, I, J, K) array of a scan."""

    def mask(self, row: ManifestRow) -> Bits | None:
        """The mask of a scan, None where it has none."""


class Sample(TypedDict):
    """One crop.

    `image` (C, *crop) float32, `lesion` (1, *crop) float32 (zeros where not known), `label` 1 lesion, 0 none, -1 not known, `number` of the
    sample in the run. A batch is the same with an axis more in front.
    """

    image: Tensor
    lesion: Tensor
    label: Tensor
    number: Tensor


@dataclass(frozen=True)
class Crops:
    """What a crop is.

    Args:
        size: Voxels along each axis; two numbers make slices along K, three make volumes.
        context: Neighbouring slices stacked as channels, odd; only for two axes.
        lesion_fraction: Share of samples centred on lesion, where lesions are known.

    Raises:
        ConfigError: A value out of range.
    """

    size: tuple[int, ...]
    context: int = 1
    lesion_fraction: float = 0.5

    def __post_init__(self) -> None:
        if len(self.size) not in (2, 3):
            raise ConfigError(f"crop size takes 2 or 3 numbers, got {list(self.size)}")
        if self.context % 2 == 0 or (self.context > 1 and len(self.size) == 3):
            raise ConfigError(f"context must be odd, and 1 for 3D crops, got {self.context}")
        if not 0 <= self.lesion_fraction <= 1:
            raise ConfigError(f"lesion_fraction must be between 0 and 1, got {self.lesion_fraction}")

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.size)

    @property
    def extent(self) -> tuple[int, int, int]:
        """Voxels along I, J, K; a slice has one along K."""
        return self.size[0], self.size[1], self.size[2] if len(self.size) == 3 else 1


@dataclass(frozen=True, eq=False)
class Case:
    """One scan: what is known of it, and where its arrays are.

    Args:
        row: The scan.
        arrays: Where it is.
        shape: (C, I, J, K) of the image.
        label: 1 positive, 0 negative, -1 not known.
        has_mask: Whether it is known where lesion is, voxel by voxel.
        lesion_slices: Indices along K with lesion.
        levels: Of each channel: values at or below it are background, outside the body or defaced.
        present: Of each channel: whether the scan has this sequence.
    """

    row: ManifestRow
    arrays: Arrays
    shape: tuple[int, int, int, int]
    label: int
    has_mask: bool
    lesion_slices: NDArray[np.intp]
    levels: tuple[float, ...] = ()
    present: tuple[bool, ...] = ()

    @property
    def image(self) -> Stored:
        """The stored image, of which only what is used is read."""
        return self.arrays.image(self.row)

    @property
    def mask(self) -> Bits | None:
        """The mask, to be read in parts; None where it is not known."""
        return self.arrays.mask(self.row) if self.has_mask else None

    @property
    def lesion(self) -> NDArray[np.uint8] | None:
        """The whole (1, I, J, K) mask, None where it is not known."""
        mask = self.mask
        return None if mask is None else mask.whole()

    @property
    def known(self) -> bool:
        """Whether it is known where lesion is: a mask, or a scan that is known to have none."""
        return self.has_mask or scan_label(self.row) == 0


def load_cases(store: Store, rows: Sequence[ManifestRow], positive: Sequence[str] = (), *, masks: bool = True) -> list[Case]:
    """What is known of scans; their arrays stay in the store.

    Args:
        store: Where they are.
        rows: Which ones.
        positive: Class names that count as positive; when empty, every class but the usual names of "nothing there".
        masks: Whether masks may be used; without them no crop knows where lesion is.

    Raises:
        ManifestError: `no_rows` when there is none.
        MedSSLError: An entry is damaged and cannot be made again.
    """
    if not rows:
        raise ManifestError("no_rows", "no scan to read for this split; look at the split column of the store's manifest.csv")
    cases = []
    for row in rows:
        entry = store.entry(row)
        has_mask = masks and entry.lesion is not None
        slices = np.array(entry.lesion_slices if has_mask else (), dtype=np.intp)
        cases.append(Case(row, store, entry.shape, scan_label(row, positive), has_mask, slices, entry.levels, entry.present))
    return cases


def scan_label(row: ManifestRow, positive: Sequence[str] = ()) -> int:
    """1 for a scan with a lesion of the asked classes, 0 for one without, -1 where that is not known."""
    if row.label:
        return int(row.label in positive) if positive else int(row.label.casefold() not in _NEGATIVE)
    return {"1": 1, "0": 0}.get(row.has_lesion, -1)


class Draws:
    """The random numbers of each sample: one stream, entered at a place of the sample's own.

    Args:
        seed: Of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def of(self, index: int) -> np.random.Generator:
        """The generator at the place of a sample; good until it is asked for another one."""
        self._bits.state = self._start
        self._bits.advance(index * _NUMBERS_A_SAMPLE)
        return self._generator


class CropDataset(Dataset[Sample]):
    """Random crops of scans, drawn evenly over scans.

    Args:
        cases: The scans.
        crops: Size and sampling.
        seed: Sample n is a function of this seed and n alone.
    """

    def __init__(self, cases: Sequence[Case], crops: Crops, *, seed: int) -> None:
        self.cases = list(cases)
        self.with_lesion = [case for case in self.cases if len(case.lesion_slices)]
        self.has_masks = any(case.has_mask for case in self.cases)
        self.crops = crops
        self.draws = Draws(seed)

    def __getitem__(self, index: int) -> Sample:
        """Crop number `index`; there is no last one."""
        batch = self.__getitems__([index])
        return cast(Sample, {name: value[0] for name, value in cast(dict[str, Tensor], batch).items()})

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The crops of these numbers as a batch; the loader of torch asks for it so."""
        batch = empty_batch(len(indices), self.cases[0].shape[0], self.crops, masks=self.has_masks)
        labels = []
        for index, image, lesion in zip(indices, batch["image"], batch["lesion"], strict=True):
            case, centre = self._draw(self.draws.of(index))
            labels.append(fill(image, lesion, case, centre, self.crops))
        return Sample(image=batch["image"], lesion=batch["lesion"], label=torch.tensor(labels), number=torch.tensor(indices))

    def _draw(self, generator: np.random.Generator) -> tuple[Case, Sequence[int]]:
        if self.with_lesion and generator.random() < self.crops.lesion_fraction:
            case = self.with_lesion[generator.integers(len(self.with_lesion))]
            return case, _lesion_centre(case, self.crops, generator)
        case = self.cases[generator.integers(len(self.cases))]
        return case, any_centre(case, self.crops, generator)


def any_centre(case: Case, crops: Crops, generator: np.random.Generator) -> Sequence[int]:
    """A centre whose crop lies inside the scan, or the middle along axes where the scan is smaller than the crop."""
    centre = []
    for length, width in zip(case.shape[1:], crops.extent, strict=True):
        low = min(width // 2, length // 2)
        centre.append(int(generator.integers(low, max(low + 1, length - (width - width // 2) + 1))))
    return centre


def _lesion_centre(case: Case, crops: Crops, generator: np.random.Generator) -> Sequence[int]:
    """A centre on a lesion slice (each slice equally likely), near a random lesion voxel."""
    mask, k = case.mask, int(generator.choice(case.lesion_slices))
    if mask is None:
        raise ManifestError("bad_label", f"scan {case.row.scan_id} lists lesion slices but has no mask")
    points = np.argwhere(mask[0:1, 0 : case.shape[1], 0 : case.shape[2], k : k + 1][0, :, :, 0])
    i, j = points[generator.integers(len(points))]
    widths = np.array(crops.extent)
    jitter = generator.integers(-widths // 4, widths // 4 + 1)
    jitter[2] *= crops.spatial_dims == 3
    return [int(place) for place in np.array((i, j, k)) + jitter]


def empty_batch(count: int, channels: int, crops: Crops, *, masks: bool = True) -> Sample:
    """A batch to be filled; lesions are 0 and labels not known. Without `masks`, one zero in memory stands for all lesions."""
    shape = (count, 1, *crops.size)
    return Sample(
        image=torch.from_numpy(np.empty((count, channels * crops.context, *crops.size), np.float32)),  # numpy asks for huge pages
        lesion=torch.zeros(shape) if masks else torch.zeros(1).expand(shape),
        label=torch.full((count,), -1),
        number=torch.arange(count),
    )


def fill(image: Tensor, lesion: Tensor, case: Case, centre: Sequence[int], crops: Crops) -> int:
    """Put the crop around a centre into tensors: moved inside the scan where it can be, edge-padded where the scan is smaller.

    Args:
        image: (C * context, *crop) to be filled.
        lesion: (1, *crop) zeros, to be filled where there is lesion.
        case: The scan.
        centre: Voxel along I, J, K.
        crops: Size and neighbouring slices.

    Returns:
        The label of the crop.
    """
    read_crop(image, case, centre, crops)
    mask, has_lesion = case.mask, False
    if mask is not None:
        window, margins = _window(case.shape, centre, crops.extent, keep=_keep(crops))
        inside = _padded(mask[window], margins)
        has_lesion = bool(inside.any())
        if has_lesion:
            lesion.copy_(torch.from_numpy(inside).view(lesion.shape))
    by_mask = crops.spatial_dims == 2 and case.known and case.shape[3] > 1  # a slice of a scan has its own answer
    return int(has_lesion) if by_mask else case.label


def read_crop(image: Tensor, case: Case, centre: Sequence[int], crops: Crops) -> None:
    """Put the image of the crop around a centre into a tensor (C * context, *crop)."""
    i, j, depth = crops.extent
    window, margins = _window(case.shape, centre, (i, j, depth if depth > 1 else crops.context), keep=_keep(crops))
    stored = torch.from_numpy(_padded(case.image[window], margins))
    if crops.spatial_dims == 2:
        image, stored = image.view(case.shape[0], crops.context, i, j), stored.permute(0, 3, 1, 2)  # K -> context
    image.copy_(stored)  # torch casts and moves float16 in one pass


def corner_of(case: Case, centre: Sequence[int], crops: Crops) -> list[int]:
    """The first voxel of the crop around a centre along I, J, K; negative where the scan is smaller than the crop."""
    window, margins = _window(case.shape, centre, crops.extent, keep=_keep(crops))
    return [part.start - before for part, (before, _) in zip(window[1:], margins[1:], strict=True)]


def _keep(crops: Crops) -> tuple[bool, bool, bool]:
    """Axes along which crops are moved inside the scan: all, but for neighbours of a slice."""
    return True, True, crops.extent[2] > 1


def cut(case: Case, centre: Sequence[int], crops: Crops) -> Sample:
    """The crop around a centre."""
    batch = empty_batch(1, case.shape[0], crops)
    label = fill(batch["image"][0], batch["lesion"][0], case, centre, crops)
    return Sample(image=batch["image"][0], lesion=batch["lesion"][0], label=torch.tensor(label), number=batch["number"][0])


def _window(
    shape: tuple[int, int, int, int], centre: Sequence[int], size: tuple[int, int, int], *, keep: tuple[bool, bool, bool]
) -> tuple[Window, list[tuple[int, int]]]:
    """Slices of what a window of a size around a centre has of an array, and what is missing on both sides of each axis.

    Along axes with `keep` the window is moved inside the array; elsewhere edges will repeat.
    """
    parts, margins = [slice(None)], [(0, 0)]
    for length, middle, width, inside in zip(shape[1:], centre, size, keep, strict=True):
        start = int(middle) - width // 2
        if inside and length >= width:
            start = min(max(start, 0), length - width)
        elif inside:
            start = -((width - length) // 2)
        first, last = min(max(start, 0), length - 1), min(max(start + width, 1), length)
        parts.append(slice(first, last))
        margins.append((first - start, start + width - last))
    channels, i, j, k = parts
    return (channels, i, j, k), margins


def _padded(window: NDArray[Value], margins: list[tuple[int, int]]) -> NDArray[Value]:
    return np.pad(window, margins, mode="edge") if any(before or after for before, after in margins) else window


class Batches(Sampler[list[int]]):
    """Sample numbers of a whole run, batch by batch, from the first batch that has not been used.

    Of several processes (`torch.distributed`) each takes its own part of every batch, so that all of them together see the same batches as
    one process alone.

    Args:
        count: Batches of the whole run.
        size: Samples of a batch, over all processes.
        first: Batches that an interrupted run has used already.
    """

    def __init__(self, count: int, size: int, *, first: int = 0) -> None:
        self.count, self.size, self.first = count, size, first

    def __len__(self) -> int:
        """Batches of the whole run, so that a resumed run counts on from where it was."""
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        """Numbers of the batches that are left."""
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        share = self.size // world
        for batch in range(self.first, self.count):
            start = batch * self.size + rank * share
            yield list(range(start, start + share))
