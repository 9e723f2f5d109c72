"""Batches of random crops from a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from medssl.data.dataset import Case, CropDataset, Crops, Fit, Sample
from medssl.data.sampling import Batches
from medssl.data.unlabelled import Positives, Unlabelled, UnlabelledDataset
from medssl.errors import ConfigError

Record = TypeVar("Record")


@dataclass(frozen=True)
class Feed:
    """Where crops come from.

    Args:
        store: What `medssl prepare` wrote.
        crops: Size and sampling of crops.
        batch_size: Crops a step, over all devices.
        workers: Processes that cut crops for each device; 0 cuts them in the training process, which is enough where the files stay in the
            disk cache.

    Raises:
        ConfigError: A value out of range.
    """

    store: Path
    crops: Crops
    batch_size: int = 16
    workers: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(f"batch_size must be >= 1 and workers >= 0, got {self.batch_size} and {self.workers}")

    def labelled(
        self, cases: Sequence[Case], *, steps: int, seed: int, done: int = 0, parts: int = 1, fit: Fit | None = None
    ) -> DataLoader[Sample]:
        """The batches of a run of `steps`, of which `done` are behind it, each in `parts`; the same seed gives the same crops.

        With `fit`, which resizes, samples are whole slices, bags or volumes: what a classifier sees when it scores.
        """
        return self._loader(CropDataset(cases, self.crops, seed=seed, fit=fit), steps, done, parts)

    def unlabelled(
        self, cases: Sequence[Case], *, positives: Positives, steps: int, seed: int, done: int = 0, parts: int = 1, text_bytes: int = 0
    ) -> DataLoader[Unlabelled]:
        """The same for pretraining, with the crops and as much of the sentences as an objective asks for."""
        dataset = UnlabelledDataset(cases, self.crops, seed=seed, positives=positives, text_bytes=text_bytes)
        return self._loader(dataset, steps, done, parts)

    def _loader(self, dataset: Dataset[Record], steps: int, done: int, parts: int) -> DataLoader[Record]:
        return DataLoader(
            dataset,
            batch_sampler=Batches(steps * parts, self.batch_size // parts, first=done * parts),
            collate_fn=_as_it_is,  # the data set gives whole batches
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),  # so that copies to the GPU run beside it
        )


def _as_it_is(batch: Record) -> Record:
    """The batch."""
    return batch
