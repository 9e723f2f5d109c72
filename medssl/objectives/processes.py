"""Losses over the crops of all processes: gradients, averaged over processes, are those of one process with the whole batch."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


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
    whole: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return whole


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes; gradients flow back."""
    if processes() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """A sum over a count, both summed over processes: a mean that does not depend on how samples are spread.

    Args:
        total: Scalar with gradient.
        count: How much it is the sum of, or the sum of the weights in it, without gradient; 0 in every process gives 0.
    """
    whole = summed(count.detach())
    return summed(total) / torch.where(whole > 0, whole, 1)


class _Gather(Function):
    """All parts, one behind the other; a part's gradient is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
        ctx.length = len(tensor)
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(processes())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        summed_gradient = _reduced(gradient)
        return summed_gradient[rank() * ctx.length : (rank() + 1) * ctx.length]


class _Sum(Function):
    """The sum of all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
        del ctx
        return _reduced(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        del ctx
        return _reduced(gradient)


def _reduced(tensor: Tensor) -> Tensor:
    whole = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(whole)
    return whole
