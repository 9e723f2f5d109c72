"""Randomness a sample: what a sample gets depends neither on the batch around it nor on the process that it is in.

So one process and many, and one large batch and several small ones, see the same masks and views.
"""

import hashlib
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor


class Streams:
    """A generator for each sample of a batch; every draw moves all of them on.

    Args:
        seeds: Of the generators, one a sample.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    @classmethod
    def of(cls, seed: int, numbers: Iterable[int]) -> Self:
        """The streams of samples of these numbers in a run with this seed."""
        return cls(mixed(seed, number) for number in numbers)

    def __len__(self) -> int:
        """B, the number of samples."""
        return len(self.generators)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) between `low` and `high`, on the CPU."""
        drawn = torch.stack([torch.rand(shape, generator=generator) for generator in self.generators])
        return drawn * (high - low) + low

    def chance(self, probability: float) -> Tensor:
        """(B,) bool, true with this probability."""
        return self.uniform() < probability

    def normal(self, *shape: int, device: torch.device | None = None) -> Tensor:
        """(B, *shape) of zero mean and unit deviation, drawn where it is needed; other devices draw other numbers."""
        if device is None or device.type == "cpu":
            return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])
        seeds = [int(torch.randint(2**62, (), generator=generator)) for generator in self.generators]
        there = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        return torch.stack([torch.randn(shape, generator=generator, device=device) for generator in there])

    def order(self, count: int) -> Tensor:
        """(B, count) a random order of 0 to count - 1."""
        return self.uniform(count).argsort(dim=1)


def mixed(*numbers: int) -> int:
    """One seed from several numbers, without the regularities of sums."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest())
