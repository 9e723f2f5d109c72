"""How much memory a training step takes, counted without taking it: the network runs on tensors that have a shape and no values.

What autograd saves for the backward pass is counted storage by storage, so that a map that two layers share counts once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medssl.models.architecture import Network

STATE = 16  # bytes of a parameter in training: weight, gradient and AdamW's two moments
_FLOWING = 3  # gradients and copies alive at once in the backward pass, in units of the largest saved map


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training step in float32.

    Args:
        state: Weights, gradients and optimiser, whatever the batch.
        sample: Each further crop of the batch.
    """

    state: int
    sample: int

    def total(self, batch_size: int) -> int:
        """Bytes of a step with so many crops."""
        return self.state + batch_size * self.sample


def footprint(build: Callable[[], Network], size: Sequence[int]) -> Footprint:
    """What a step of a network takes.

    Args:
        build: Makes the network; it is called with torch's default device set to `meta`, which holds no values.
        size: Voxels of a crop along each axis.
    """
    with torch.device("meta"):
        network = build()
        saved = _saved(network, torch.empty(1, network.in_channels, *size))
    return Footprint(
        state=STATE * sum(parameter.numel() for parameter in network.parameters()),
        sample=sum(saved) + _FLOWING * max(saved, default=0),
    )


def _saved(network: nn.Module, images: Tensor) -> list[int]:
    """Bytes of every storage that the forward pass keeps for the backward pass, parameters left out."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad():
        output = network.train()(images)  # kept until the end, so that no storage takes the place of another
    del output
    return list(kept.values())
