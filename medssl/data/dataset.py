"""Random crops of a store: every sample is a function of the seed and its number, so a run can be repeated and resumed.

Nothing is read before it is needed: a crop touches its own pages of a mapped file. Crops of a batch are cast straight into its tensor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medssl.data.classes import Classes, check_known, scan_label
from medssl.data.entry import Bits, Stored
from medssl.data.manifest import ManifestRow
from medssl.data.sampling import Draws, Groups
from medssl.data.store import Store
from medssl.data.window import Window, padded, window_at
from medssl.errors import ConfigError, ManifestError

Target = tuple[int, ...]

_BINARY = Classes()


class Arrays(Protocol):
    """Where scans are: a store."""

    def image(self, row: ManifestRow) -> Stored:
        """The stored (C, I, J, K) array of a scan."""

    def mask(self, row: ManifestRow) -> Bits | None:
        """The mask of a scan, None where it has none."""


class Sample(TypedDict):
    """One crop.

    `image` (C, *crop) float32, or (N, C, *crop) of a bag of N slices; `lesion` (1, *crop) float32 (zeros where not known): 1 where lesion
    is, or the number of the class, the first is 1; `label` 1 lesion, 0 none, or the index of the class, or (classes,) of 0 and 1, and -1
    where it is not known; `number` of the sample in the run. A batch is the same with an axis more in front.
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
        lesion_fraction: Share of samples centred on lesion, where lesions are known; each class that masks tell apart is equally likely.
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
        classes: Which classes there are.
        value_slices: Indices along K of each value of a mask that tells classes apart; empty for lesion against none.
    """

    row: ManifestRow
    arrays: Arrays
    shape: tuple[int, int, int, int]
    label: int
    has_mask: bool
    lesion_slices: NDArray[np.intp]
    levels: tuple[float, ...] = ()
    present: tuple[bool, ...] = ()
    classes: Classes = _BINARY
    value_slices: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """What a classifier learns of the scan, see `Classes.target`."""
        return self.classes.target(self.row) if self.classes.names else (self.label,)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The number of the class (the first is 1) of each value of the mask; all of it is 1 where no classes are named."""
        if not self.classes.names:
            return dict.fromkeys(self.value_slices or (1,), 1)
        named = self.classes.value_names(self.row, self.value_slices)
        return {value: self.classes.names.index(name) + 1 for value, name in named.items()}

    @property
    def positive_values(self) -> tuple[int, ...]:
        """The values of the mask whose classes count as positive."""
        names = self.classes.names
        return tuple(value for value, number in self.numbers.items() if not names or names[number - 1] in self.classes.positives)

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
        """The whole (1, I, J, K) mask of positive classes as 0 and 1, None where it is not known."""
        mask = self.mask
        return None if mask is None else mask.only(mask.everywhere, self.positive_values)

    def class_mask(self, parts: Window | None = None) -> NDArray[np.uint8] | None:
        """The numbers of classes (1, ...) at four slices or everywhere: the first class is 1; None where they are not known."""
        mask = self.mask
        if mask is None:
            return None
        parts = mask.everywhere if parts is None else parts
        if not self.classes.names:
            return mask[parts]
        found = [np.uint8(number) * mask.only(parts, (value,)) for value, number in self.numbers.items()]
        return np.asarray(np.max(found, axis=0) if found else mask[parts] * 0, dtype=np.uint8)

    @property
    def known(self) -> bool:
        """Whether it is known where lesion is: a mask, or a scan that is known to have none."""
        return self.has_mask or scan_label(self.row) == 0


def load_cases(
    store: Store, rows: Sequence[ManifestRow], positive: Sequence[str] = (), *, masks: bool = True, classes: Classes | None = None
) -> list[Case]:
    """What is known of scans; their arrays stay in the store.

    Args:
        store: Where they are.
        rows: Which ones.
        positive: Class names that count as positive; when empty, every class but the usual names of "nothing there".
        masks: Whether masks may be used; without them no crop knows where lesion is.
        classes: Named classes, instead of `positive`.

    Raises:
        ManifestError: `no_rows` when there is none, `bad_label` for classes that are not named.
        MedSSLError: An entry is damaged and cannot be made again.
    """
    if not rows:
        raise ManifestError("no_rows", "no scan to read for this split; look at the split column of the store's manifest.csv")
    classes = Classes(positive=tuple(positive)) if classes is None else classes
    check_known(classes, rows)
    return [_case(store, row, classes, masks=masks) for row in rows]


def _case(store: Store, row: ManifestRow, classes: Classes, *, masks: bool) -> Case:
    entry = store.entry(row)
    has_mask = masks and entry.lesion is not None
    values = dict(zip(entry.values, entry.value_slices, strict=True)) if has_mask else {}
    label = scan_label(row, classes.positives)
    slices = np.array(entry.lesion_slices if has_mask else (), dtype=np.intp)
    case = Case(row, store, entry.shape, label, has_mask, slices, entry.levels, entry.present, classes, values)
    if not has_mask or not classes.names:
        return case
    found = sorted({k for value in case.positive_values for k in values.get(value, entry.lesion_slices)})
    return replace(case, lesion_slices=np.array(found, dtype=np.intp), label=label if row.label else int(bool(found)))


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
        self.spots = Groups((number, Spot(case, value)) for case in self.cases for value, number in _told_apart(case))
        self.by_class = Groups((group, case) for case in self.cases if crops.balanced for group in _groups(case))

    def __getitem__(self, index: int) -> Sample:
        """Crop number `index`; there is no last one."""
        batch = self.__getitems__([index])
        return cast(Sample, {name: value[0] for name, value in cast(dict[str, Tensor], batch).items()})

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The crops of these numbers as a batch; the loader of torch asks for it so."""
        batch = empty_batch(len(indices), self.cases[0].shape[0], self.crops, masks=self.has_masks)
        labels = []
        for index, image, lesion in zip(indices, batch["image"], batch["lesion"], strict=True):
            generator = self.draws.of(index)
            case, centre = self._draw(generator)
            if self.crops.bag > 1:
                labels.append(fill_bag(image, case, centre, self.crops, generator))
            else:
                labels.append(fill(image, lesion, case, centre, self.crops))
        label = torch.tensor(labels)
        label = label[:, 0] if label.shape[1] == 1 else label
        return Sample(image=batch["image"], lesion=batch["lesion"], label=label, number=torch.tensor(indices))

    def _draw(self, generator: np.random.Generator) -> tuple[Case, Sequence[int]]:
        if (self.spots or self.with_lesion) and self.crops.bag == 1 and generator.random() < self.crops.lesion_fraction:
            if self.spots:
                spot = self.spots.draw(generator)
                return spot.case, _lesion_centre(spot.case, self.crops, generator, value=spot.value)
            case = self.with_lesion[generator.integers(len(self.with_lesion))]
            return case, _lesion_centre(case, self.crops, generator)
        case = self.by_class.draw(generator) if self.by_class else self.cases[generator.integers(len(self.cases))]
        return case, any_centre(case, self.crops, generator)


class Spot(NamedTuple):
    """Where crops of a class can be centred: a scan and a value of its mask."""

    case: Case
    value: int


def _told_apart(case: Case) -> Iterator[tuple[int, int]]:
    """The values of a scan's mask and the numbers of their classes, where classes are named and the scan has them."""
    if case.classes.names and case.has_mask:
        yield from ((value, number) for value, number in case.numbers.items() if len(_slices_of(case, value)))


def _slices_of(case: Case, value: int) -> Sequence[int]:
    """Indices along K with a value of the mask."""
    return case.value_slices[value] if case.value_slices else case.lesion_slices.tolist()


def _groups(case: Case) -> Target:
    """The classes that a scan is drawn for; none where its answer is not known. 0 and below: several labels, of which it has none."""
    target = case.target
    if -1 in target:
        return ()
    if len(target) == 1:
        return target
    return tuple(index for index, there in enumerate(target) if there) or (-1,)


def any_centre(case: Case, crops: Crops, generator: np.random.Generator) -> Sequence[int]:
    """A centre whose crop lies inside the scan, or the middle along axes where the scan is smaller than the crop."""
    centre = []
    for length, width in zip(case.shape[1:], crops.extent, strict=True):
        low = min(width // 2, length // 2)
        centre.append(int(generator.integers(low, max(low + 1, length - (width - width // 2) + 1))))
    return centre


def _lesion_centre(case: Case, crops: Crops, generator: np.random.Generator, *, value: int | None = None) -> Sequence[int]:
    """A centre on a lesion slice (each slice equally likely), near a random voxel of lesion or of one value of the mask."""
    mask, k = case.mask, int(generator.choice(case.lesion_slices if value is None else _slices_of(case, value)))
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
    masks = masks and not bag
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
        The label of the crop, as `Classes.target` gives it.
    """
    read_crop(image, case, centre, crops)
    window, margins = window_at(case.shape, centre, crops.extent, keep=_keep(crops))
    marked, inside = case.class_mask(window), None
    if marked is not None and marked.any():
        inside = padded(marked, margins)
        lesion.copy_(torch.from_numpy(inside).view(lesion.shape))
    by_mask = crops.spatial_dims == 2 and case.known and case.shape[3] > 1  # a slice of a scan has its own answer
    return _slice_target(case, inside) if by_mask else case.target


def _slice_target(case: Case, marked: NDArray[np.uint8] | None) -> Target:
    """The label of a slice whose mask is known."""
    numbers = () if marked is None else tuple(int(number) for number in np.unique(marked) if number)
    return case.classes.slice_target(case.row, numbers, told_apart=bool(case.value_slices))


def fill_bag(image: Tensor, case: Case, centre: Sequence[int], crops: Crops, generator: np.random.Generator) -> Target:
    """Put a bag of slices into a tensor (N, C * context, *crop): one of each N-th part of the scan; fewer slices are repeated.

    Returns:
        The label of the scan.
    """
    i, j, _ = centre
    places = (np.arange(crops.bag) + generator.random(crops.bag)) * case.shape[3] / crops.bag
    for one, k in zip(image, places.astype(int), strict=True):
        read_crop(one, case, (i, j, int(k)), crops)
    return case.target


def read_crop(image: Tensor, case: Case, centre: Sequence[int], crops: Crops) -> None:
    """Put the image of the crop around a centre into a tensor (C * context, *crop)."""
    i, j, depth = crops.extent
    window, margins = window_at(case.shape, centre, (i, j, depth if depth > 1 else crops.context), keep=_keep(crops))
    stored = torch.from_numpy(padded(case.image[window], margins))
    if crops.spatial_dims == 2:
        image, stored = image.view(case.shape[0], crops.context, i, j), stored.permute(0, 3, 1, 2)  # K -> context
    image.copy_(stored)  # torch casts and moves float16 in one pass


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
