"""Learning-rate schedules, and which weights follow which."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Weights that learn at one pace.

    Args:
        names: Of parameters.
        rate: Factor on the learning rate.
        starts: Steps at which the rate rises anew, in order; the weights rest before the first of them.
    """

    names: frozenset[str]
    rate: float = 1.0
    starts: tuple[int, ...] = (0,)


def warmup_cosine(steps: int, warmup_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate: linear up over the warm-up, then half a cosine down to 0.

    Loshchilov and Hutter, 2016, https://arxiv.org/abs/1608.03983, without restarts.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor


def sawtooth(starts: Sequence[int], steps: int, *, warmup: float) -> Callable[[int], float]:
    """Factor on the learning rate: 0 before the first start, then a warm-up and half a cosine from each start to the next.

    A tooth that is not the last rises over half of its length (nnU-Net's fine-tuning: 25 epochs up, 25 down), the last one over `warmup`.

    Args:
        starts: First step of each tooth, in order.
        steps: Of the run.
        warmup: Share of the last tooth with a rising rate.
    """
    lengths = [end - start for start, end in zip(starts, (*starts[1:], steps), strict=True)]
    teeth = [warmup_cosine(length, length // 2) for length in lengths[:-1]]
    teeth.append(warmup_cosine(lengths[-1], round(warmup * lengths[-1])))

    def factor(step: int) -> float:
        begun = [(start, tooth) for start, tooth in zip(starts, teeth, strict=True) if start <= step]
        return begun[-1][1](step - begun[-1][0]) if begun else 0.0

    return factor
