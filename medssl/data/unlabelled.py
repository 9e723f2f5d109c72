"""Crops for pretraining: no label, no mask, but which crops belong together and what of them is body."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medssl.data.case import Case
from medssl.data.crops import Crops, any_centre, corner_of, read_crop
from medssl.data.sampling import Draws
from medssl.patients import patient_key

Positives = Literal["same", "overlap", "visit"]

_NOT_SHARED = float("nan")


class Unlabelled(TypedDict):
    """A batch of crops; V is 1, or 2 where crops come in pairs, C counts channels.

    `image` (B, V, C, *crop) float32, `number` (B,) of the sample in the run, `patient` (B,), `corner` (B, V, D) voxel where a crop begins,
    `level` (B, V, C) values at or below it are background, `present` (B, V, C) sequences that the scan has, `text` (B, L) bytes of a
    sentence on the scan, filled up with 0.
    """

    image: Tensor
    number: Tensor
    patient: Tensor
    corner: Tensor
    level: Tensor
    present: Tensor
    text: Tensor


class UnlabelledDataset(Dataset[Unlabelled]):
    """Random crops of scans, drawn evenly over scans.

    Args:
        cases: The scans.
        crops: Size of the crops, whose centres lie in the box around the body; where lesions are is not looked at.
        seed: Sample n is a function of this seed and n alone.
        positives: `same`: one crop a sample; `overlap`: two crops of one scan that share at least `overlap` along each axis; `visit`:
            crops at about the same place of two scans of a patient, or overlapping ones where a patient has one scan.
        overlap: Least share along each axis.
        text_bytes: Of a sentence on a scan; what is longer is cut, 0 reads none.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        crops: Crops,
        *,
        seed: int,
        positives: Positives = "same",
        overlap: float = 0.5,
        text_bytes: int = 0,
    ) -> None:
        self.cases, self.crops, self.positives, self.overlap = list(cases), crops, positives, overlap
        longest = max((len(case.row.report.encode()) for case in self.cases), default=0)
        self.text_bytes = min(text_bytes, max(longest, 1))
        self.draws = Draws(seed)
        self.visits: dict[str, list[Case]] = defaultdict(list)
        for case in self.cases:
            self.visits[patient_key(case.row.patient)].append(case)
        self.patients = {patient: number for number, patient in enumerate(self.visits)}

    def __getitem__(self, index: int) -> Unlabelled:
        """Sample number `index`; there is no last one."""
        batch = self.__getitems__([index])
        return cast(Unlabelled, {name: value[0] for name, value in cast(dict[str, Tensor], batch).items()})

    def __getitems__(self, indices: Sequence[int]) -> Unlabelled:
        """The samples of these numbers as a batch; the loader of torch asks for it so."""
        drawn = [self._draw(self.draws.of(index)) for index in indices]
        channels, views = self.cases[0].shape[0] * self.crops.context, len(drawn[0])
        images = torch.from_numpy(np.empty((len(drawn), views, channels, *self.crops.size), np.float32))  # numpy asks for huge pages
        for row, crops in zip(images, drawn, strict=True):
            for image, (case, centre) in zip(row, crops, strict=True):
                read_crop(image, case, centre, self.crops)
        firsts = [crops[0][0] for crops in drawn]
        return Unlabelled(
            image=images,
            number=torch.tensor(indices),
            patient=torch.tensor([self.patients[patient_key(case.row.patient)] for case in firsts]),
            corner=torch.tensor([self._corners(crops) for crops in drawn]),
            level=torch.tensor([[self._channels(case.levels) for case, _ in crops] for crops in drawn]),
            present=torch.tensor([[self._channels(case.present) for case, _ in crops] for crops in drawn]),
            text=torch.tensor([_bytes_of(case.row.report, self.text_bytes) for case in firsts], dtype=torch.uint8),
        )

    def _draw(self, generator: np.random.Generator) -> list[tuple[Case, Sequence[int]]]:
        """One crop, or two that belong together."""
        case = self.cases[generator.integers(len(self.cases))]
        first = case, any_centre(case, self.crops, generator, case.box)
        if self.positives == "same":
            return [first]
        others = [other for other in self.visits[patient_key(case.row.patient)] if other is not case] if self.positives == "visit" else []
        if others:
            other = others[generator.integers(len(others))]
            return [first, (other, _same_place(first, other))]
        return [first, (case, self._beside(first, generator))]

    def _beside(self, first: tuple[Case, Sequence[int]], generator: np.random.Generator) -> Sequence[int]:
        """The centre of a crop that overlaps another; slices stay in their plane."""
        case, centre = first
        centres = []
        for length, width, middle in zip(case.shape[1:], self.crops.extent, centre, strict=True):
            reach = int(width * (1 - self.overlap))
            low = min(width // 2, length // 2)
            high = max(low, length - (width - width // 2))
            centres.append(int(np.clip(middle + generator.integers(-reach, reach + 1), low, high)))
        return centres

    def _corners(self, crops: Sequence[tuple[Case, Sequence[int]]]) -> list[list[float]]:
        """Where crops begin along the axes that they have; not a number where they lie in different scans."""
        if crops[0][0] is not crops[-1][0]:
            return [[_NOT_SHARED] * self.crops.spatial_dims for _ in crops]
        return [[float(place) for place in corner_of(case, centre, self.crops)[: self.crops.spatial_dims]] for case, centre in crops]

    def _channels(self, values: Sequence[float]) -> list[float]:
        """Values of sequences as values of channels: each sequence with its neighbouring slices."""
        return [value for value in values for _ in range(self.crops.context)]


def _same_place(first: tuple[Case, Sequence[int]], other: Case) -> Sequence[int]:
    """The same relative place in another scan."""
    case, centre = first
    sides = zip(centre, case.shape[1:], other.shape[1:], strict=True)
    return [min(there - 1, round(place * there / here)) for place, here, there in sides]


def _bytes_of(text: str, length: int) -> list[int]:
    encoded = text.encode()[:length]
    return [*encoded, *[0] * (length - len(encoded))]
