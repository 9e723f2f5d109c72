"""Losses and gradients of a batch, or of a half of it as one of two processes: `sharded_losses.py RANK FOLDER`."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, distributed

from medssl.training.losses import CrossEntropy, DiceCrossEntropy, Focal, Loss, Truth, Tversky

SAMPLES = 4
LOSSES: Mapping[str, Loss] = {
    "cross_entropy": CrossEntropy(smoothing=0.1),
    "focal": Focal(),
    "dice": DiceCrossEntropy(),
    "tversky": Tversky(power=0.75),
}


def learned(name: str, part: slice) -> dict[str, Tensor]:
    """The loss of some of the samples and its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits, numbers = torch.randn(SAMPLES, 3, 4, 4, generator=generator), torch.randint(0, 3, (SAMPLES, 1, 4, 4), generator=generator)
    mine = logits[part].requires_grad_()
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.5, 1.0, 2.0]])
    loss = LOSSES[name](mine, Truth.of_mask(numbers[part], 3, weights=weights))
    loss.backward()  # type: ignore[no-untyped-call]
    assert mine.grad is not None
    return {"loss": loss.detach(), "gradient": mine.grad}


def main(rank: int, folder: Path) -> None:
    """Save what each loss says in this process."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = SAMPLES // 2
    for name in LOSSES:
        torch.save(learned(name, slice(half * rank, half * (rank + 1))), folder / f"{name}_{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
