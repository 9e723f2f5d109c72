"""Batches of random crops from a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from medssl.data.dataset import Case, CropDataset, Crops, Sample, StepSampler
from medssl.errors import ConfigError


@dataclass(frozen=True)
class Feed:
    """Where crops come from.

    Args:
        store: What `medssl prepare` wrote.
        crops: Size and sampling of crops.
        batch_size: Crops a step.
        workers: Processes that cut crops; 0 cuts them in the training process, which is enough where the files stay in the disk cache.

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

    def loader(self, cases: Sequence[Case], *, steps: int, seed: int, done: int = 0) -> DataLoader[Sample]:
        """The batches of a run of `steps`, of which `done` are behind it; the same seed gives the same crops."""
        return DataLoader(
            CropDataset(cases, self.crops, seed=seed),
            batch_size=self.batch_size,
            sampler=StepSampler(steps * self.batch_size, first=done * self.batch_size),
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # the data set gives whole batches
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )


def _as_it_is(batch: Sample) -> Sample:
    """The batch."""
    return batch
