"""Losses over the crops of all processes: gradients, averaged over processes, are those of one process with the whole batch."""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather, all_reduce


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def gathered(tensor: Tensor) -> Tensor:
    """(B, ...) of this process -> (processes * B, ...) of all, in the order of the whole batch; gradients flow back."""
    if processes() == 1:
        return tensor
    if tensor.requires_grad:
        return torch.cat(all_gather(tensor.contiguous()))  # type: ignore[no-untyped-call]
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """A sum over a count, both summed over processes: a mean that does not depend on how samples are spread.

    Args:
        total: Scalar with gradient.
        count: How much it is the sum of, without gradient; 0 in every process gives 0.
    """
    if processes() == 1:
        return total / count.clamp(min=1)
    whole = count.detach().clone()
    distributed.all_reduce(whole)
    summed: Tensor = all_reduce(total)  # type: ignore[no-untyped-call]
    return summed / whole.clamp(min=1)
