"""A teacher: the running mean of a student, which gives targets and gets no gradient.

Tarvainen and Valpola, "Mean teachers are better role models", 2017, https://arxiv.org/abs/1703.01780; the rising momentum is that of Grill
et al., "Bootstrap Your Own Latent", 2020, section 3.3, https://arxiv.org/abs/2006.07733.
"""

import copy
import math
from typing import Generic, Self, TypeVar

import torch
from torch import nn

from medssl.errors import ConfigError

Student = TypeVar("Student", bound=nn.Module)


class Teacher(nn.Module, Generic[Student]):
    """A copy of a student that follows it slowly; always in evaluation mode, part of the state of its objective.

    Args:
        student: What is copied.

    Attributes:
        module: The copy.
    """

    module: Student

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a teacher drops no path and learns no statistic of a batch."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: Student, momentum: float) -> None:
        """Move towards the student.

        Args:
            student: Of the same architecture.
            momentum: Share of the teacher that stays, 0 to 1; counts in buffers are taken over as they are.
        """
        mine = [*self.module.parameters(), *self.module.buffers()]
        theirs = [*student.parameters(), *student.buffers()]
        for taught, learned in zip(mine, theirs, strict=True):
            if taught.is_floating_point():
                taught.lerp_(learned, 1 - momentum)
            else:
                taught.copy_(learned)


def cosine_momentum(start: float, progress: float) -> float:
    """From `start` at the beginning of a run (progress 0) along a cosine to 1 at its end."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


def checked_momentum(momentum: float) -> float:
    """The momentum.

    Raises:
        ConfigError: It lies outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ConfigError(f"momentum must lie in [0, 1], got {momentum}")
    return momentum
