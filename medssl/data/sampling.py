"""Which samples a run has and what is drawn for each: batches by number, random numbers by sample, classes equally likely."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np
from torch import distributed
from torch.utils.data import Sampler

Member = TypeVar("Member")

_NUMBERS_A_SAMPLE = 1 << 20  # far more than a sample draws


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


class Groups(Generic[Member]):
    """Members by class.

    Args:
        members: Class and member, in an order that does not change from run to run.
    """

    def __init__(self, members: Iterable[tuple[Hashable, Member]]) -> None:
        found: dict[Hashable, list[Member]] = defaultdict(list)
        for key, member in members:
            found[key].append(member)
        self.groups = [found[key] for key in sorted(found, key=repr)]

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.groups)

    def draw(self, generator: np.random.Generator) -> Member:
        """A member of a class; each class is equally likely, and so is each member of it."""
        group = self.groups[generator.integers(len(self.groups))]
        return group[generator.integers(len(group))]


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
