"""Learning-rate schedules."""

import math
from collections.abc import Callable


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
