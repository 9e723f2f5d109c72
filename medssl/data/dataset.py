"""Random crops of a store: every sample is a function of the seed and its number, so a run can be repeated and resumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medssl.data.manifest import ManifestRow
from medssl.data.store import Store, decode
from medssl.errors import ConfigError, ManifestError

_NEGATIVE = frozenset({"normal", "healthy", "none", "negative", "control", "0", "no", "false"})

Stored = TypeVar("Stored", bound=np.generic)


class Sample(TypedDict):
    """One crop: `image` (C, *crop) float32, `lesion` (1, *crop) float32 (zeros where not known), `label` 1 lesion, 0 none, -1 not known."""

    image: Tensor
    lesion: Tensor
    label: Tensor


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


@dataclass(frozen=True, eq=False)
class Case:
    """One scan in memory: stored image, mask where known, label (1 positive, 0 negative, -1 not known)."""

    row: ManifestRow
    image: NDArray[np.int16]
    lesion: NDArray[np.uint8] | None
    label: int
    lesion_slices: NDArray[np.intp]  # indices along K

    @property
    def known(self) -> bool:
        """Whether it is known where lesion is: a mask, or a scan that is known to have none."""
        return self.lesion is not None or scan_label(self.row) == 0


def load_cases(store: Store, rows: Sequence[ManifestRow], positive: Sequence[str] = ()) -> list[Case]:
    """Read scans into memory.

    Args:
        store: Where they are.
        rows: Which ones.
        positive: Class names that count as positive; when empty, every class but the usual names of "nothing there".

    Raises:
        ManifestError: `no_rows` when there is none.
    """
    if not rows:
        raise ManifestError("no_rows", "no scan to read for this split; look at the split column of the store's manifest.csv")
    return [_load_case(store, row, positive) for row in rows]


def _load_case(store: Store, row: ManifestRow, positive: Sequence[str]) -> Case:
    stored = store.lesion(row)
    lesion = None if stored is None else np.asarray(stored[:])
    slices = np.array([], dtype=np.intp) if lesion is None else np.flatnonzero(lesion.any(axis=(0, 1, 2)))
    return Case(row, np.asarray(store.image(row)[:]), lesion, scan_label(row, positive), slices)


def scan_label(row: ManifestRow, positive: Sequence[str] = ()) -> int:
    """1 for a scan with a lesion of the asked classes, 0 for one without, -1 where that is not known."""
    if row.label:
        return int(row.label in positive) if positive else int(row.label.casefold() not in _NEGATIVE)
    return {"1": 1, "0": 0}.get(row.has_lesion, -1)


class CropDataset(Dataset[Sample]):
    """Random crops of scans, drawn evenly over scans.

    Args:
        cases: Scans in memory.
        crops: Size and sampling.
        seed: Sample n is a function of this seed and n alone.
    """

    def __init__(self, cases: Sequence[Case], crops: Crops, *, seed: int) -> None:
        self.cases = list(cases)
        self.with_lesion = [case for case in self.cases if len(case.lesion_slices)]
        self.crops = crops
        self.seed = seed

    def __getitem__(self, index: int) -> Sample:
        """Crop number `index`; there is no last one."""
        generator = np.random.default_rng((self.seed, index))
        case, centre = self._draw(generator)
        return cut(case, centre, self.crops)

    def _draw(self, generator: np.random.Generator) -> tuple[Case, NDArray[np.intp]]:
        if self.with_lesion and generator.random() < self.crops.lesion_fraction:
            case = self.with_lesion[generator.integers(len(self.with_lesion))]
            if case.lesion is None:
                raise ManifestError("bad_label", f"scan {case.row.scan_id} lists lesion slices but has no mask")
            return case, _lesion_centre(case.lesion, case.lesion_slices, self.crops, generator)
        case = self.cases[generator.integers(len(self.cases))]
        return case, _any_centre(case, self.crops, generator)


def _any_centre(case: Case, crops: Crops, generator: np.random.Generator) -> NDArray[np.intp]:
    """A centre whose crop lies inside the scan, or the middle along axes where the scan is smaller than the crop."""
    shape, size = np.array(case.image.shape[1:]), np.array((*crops.size, 1)[:3])
    low = np.minimum(size // 2, shape // 2)
    high = np.maximum(low + 1, shape - (size - size // 2) + 1)
    return np.asarray(generator.integers(low, high), dtype=np.intp)


def _lesion_centre(lesion: NDArray[np.uint8], slices: NDArray[np.intp], crops: Crops, generator: np.random.Generator) -> NDArray[np.intp]:
    """A centre on a lesion slice (each slice equally likely), near a random lesion voxel."""
    k = generator.choice(slices)
    points = np.argwhere(lesion[0, :, :, k])
    i, j = points[generator.integers(len(points))]
    jitter = generator.integers(-np.array((*crops.size, 1)[:3]) // 4, np.array((*crops.size, 1)[:3]) // 4 + 1)
    jitter[2] *= crops.spatial_dims == 3
    return np.array((i, j, k)) + jitter


def cut(case: Case, centre: NDArray[np.intp], crops: Crops) -> Sample:
    """The crop around a centre, moved inside the scan where it can be, edge-padded where the scan is smaller."""
    depth = crops.size[2] if crops.spatial_dims == 3 else 1
    size = (crops.size[0], crops.size[1], depth)
    image = _window(case.image, centre, (size[0], size[1], depth if depth > 1 else crops.context), keep=(True, True, depth > 1))
    lesion = np.zeros((1, *size), np.uint8) if case.lesion is None else _window(case.lesion, centre, size, keep=(True, True, depth > 1))
    values = torch.from_numpy(decode(image))
    mask = torch.from_numpy(lesion.astype(np.float32))
    if crops.spatial_dims == 2:
        values = values.permute(0, 3, 1, 2).flatten(0, 1)  # (C, I, J, context) -> (C * context, I, J)
        mask = mask[..., 0]
    by_mask = crops.spatial_dims == 2 and case.known and case.image.shape[3] > 1  # a slice of a scan has its own answer
    return Sample(image=values, lesion=mask, label=torch.tensor(int(mask.any()) if by_mask else case.label))


def _window(
    array: NDArray[Stored], centre: NDArray[np.intp], size: tuple[int, int, int], *, keep: tuple[bool, bool, bool]
) -> NDArray[Stored]:
    """`(C, *size)` around a centre; along axes with `keep` the window is moved inside the array, elsewhere edges repeat."""
    parts, margins = [slice(None)], [(0, 0)]
    for axis, (middle, width, inside) in enumerate(zip(centre, size, keep, strict=True), start=1):
        length = array.shape[axis]
        start = int(middle) - width // 2
        if inside and length >= width:
            start = min(max(start, 0), length - width)
        elif inside:
            start = -((width - length) // 2)
        first, last = min(max(start, 0), length - 1), min(max(start + width, 1), length)
        parts.append(slice(first, last))
        margins.append((first - start, start + width - last))
    window = array[tuple(parts)]
    return np.pad(window, margins, mode="edge") if any(before or after for before, after in margins) else window


class StepSampler(Sampler[int]):
    """Sample numbers of a whole run in order, from the first one that has not been used.

    Args:
        samples: Samples of the whole run.
        first: Samples that an interrupted run has used already.
    """

    def __init__(self, samples: int, *, first: int = 0) -> None:
        self.samples, self.first = samples, first

    def __len__(self) -> int:
        """Samples of the whole run, so that a resumed run counts on from where it was."""
        return self.samples

    def __iter__(self) -> Iterator[int]:
        """Numbers that are left."""
        return iter(range(self.first, self.samples))
