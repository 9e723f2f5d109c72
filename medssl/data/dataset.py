"""Random samples of a store: every one is a function of the seed and its number, so a run can be repeated and resumed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medssl.data.case import Case, Target, load_cases
from medssl.data.crops import Crops, Fit, Sample, any_centre, cut, empty_batch, fill, fill_whole, lesion_centre, spread
from medssl.data.sampling import Draws, Groups
from medssl.errors import ConfigError

__all__ = ["Case", "CropDataset", "Crops", "Fit", "Sample", "cut", "load_cases"]


class CropDataset(Dataset[Sample]):
    """Random crops of scans, or whole slices and volumes, drawn evenly over scans.

    Args:
        cases: The scans.
        crops: Size and sampling.
        seed: Sample n is a function of this seed and n alone.
        fit: What resizes whole slices, volumes or slices of bags to the size of a crop, for classifiers, which see a scan so when they
            score it; None cuts crops.

    Raises:
        ConfigError: Bags of crops.
    """

    def __init__(self, cases: Sequence[Case], crops: Crops, *, seed: int, fit: Fit | None = None) -> None:
        if crops.bag > 1 and fit is None:
            raise ConfigError("bags hold whole slices; give what resizes them")
        self.cases = list(cases)
        self.with_lesion = [case for case in self.cases if len(case.lesion_slices)]
        self.ill = [case for case in self.cases if case.label == 1 or len(case.lesion_slices)]
        self.has_masks = fit is None and any(case.has_mask for case in self.cases)
        self.crops, self.fit = crops, fit
        self.draws = Draws(seed)
        self.spots = Groups((number, Spot(case, value)) for case in self.cases for value, number in _told_apart(case))
        self.by_class = Groups((group, case) for case in self.cases if crops.balanced for group in _groups(case))

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`; there is no last one."""
        batch = self.__getitems__([index])
        return cast(Sample, {name: value[0] for name, value in cast(dict[str, Tensor], batch).items()})

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The samples of these numbers as a batch; the loader of torch asks for it so."""
        batch = empty_batch(len(indices), self.cases[0].shape[0], self.crops, masks=self.has_masks)
        labels = []
        for index, image, lesion in zip(indices, batch["image"], batch["lesion"], strict=True):
            generator = self.draws.of(index)
            case, centre = self._draw(generator)
            if self.fit is None:
                labels.append(fill(image, lesion, case, centre, self.crops))
            else:
                places = spread(case.shape[3], self.crops.bag, generator) if self.crops.bag > 1 else [int(centre[2])]
                labels.append(fill_whole(image, case, places, self.crops, self.fit))
        label = torch.tensor(labels)
        label = label[:, 0] if label.shape[1] == 1 else label
        return Sample(image=batch["image"], lesion=batch["lesion"], label=label, number=torch.tensor(indices))

    def _draw(self, generator: np.random.Generator) -> tuple[Case, Sequence[int]]:
        if self.crops.bag > 1 and self.ill and generator.random() < self.crops.lesion_fraction:
            case = self.ill[generator.integers(len(self.ill))]
            return case, any_centre(case, self.crops, generator)
        if (self.spots or self.with_lesion) and self.crops.bag == 1 and generator.random() < self.crops.lesion_fraction:
            if self.spots:
                spot = self.spots.draw(generator)
                return spot.case, lesion_centre(spot.case, self.crops, generator, value=spot.value)
            case = self.with_lesion[generator.integers(len(self.with_lesion))]
            return case, lesion_centre(case, self.crops, generator)
        case = self.by_class.draw(generator) if self.by_class else self.cases[generator.integers(len(self.cases))]
        return case, any_centre(case, self.crops, generator, case.box if self.fit is None else None)


class Spot(NamedTuple):
    """Where crops of a class can be centred: a scan and a value of its mask."""

    case: Case
    value: int


def _told_apart(case: Case) -> Iterator[tuple[int, int]]:
    """The values of a scan's mask and the numbers of their classes, where classes are named and the scan has them."""
    if case.classes.names and case.has_mask:
        yield from ((value, number) for value, number in case.numbers.items() if len(case.slices_of(value)))


def _groups(case: Case) -> Target:
    """The classes that a scan is drawn for; none where its answer is not known. 0 and below: several labels, of which it has none."""
    target = case.target
    if -1 in target:
        return ()
    if len(target) == 1:
        return target
    return tuple(index for index, there in enumerate(target) if there) or (-1,)
