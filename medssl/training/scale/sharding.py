"""FSDP: what is spread over devices as one piece, and how the network is clipped and followed as a whole.

Zhao et al., "PyTorch FSDP", 2023, https://arxiv.org/abs/2304.11277.
"""

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from medssl.models.blocks import Block, CrossBlock
from medssl.models.convolutions import ResidualBlock
from medssl.objectives.teacher import Teacher

UNITS = ModuleWrapPolicy({Block, CrossBlock, ResidualBlock})
"""The parts that are gathered one at a time: a device holds its share of all of them and one of them whole."""


def spread() -> FSDPStrategy:
    """Lightning's strategy: blocks are the units, gradients are added up in float32, checkpoints hold the whole."""
    return FSDPStrategy(auto_wrap_policy=UNITS, mixed_precision=MixedPrecision(), state_dict_type="full")


def clipped(model: nn.Module | None, largest: float) -> bool:
    """Clip the norm of all gradients together, over all devices, where a model is spread; whether it is."""
    if not isinstance(model, FullyShardedDataParallel):
        return False
    model.clip_grad_norm_(largest)
    return True


def followed(model: nn.Module | None) -> AbstractContextManager[None]:
    """Where a teacher moves towards its student: both are gathered, as their shares on a device are not of the same weights."""
    if not isinstance(model, FullyShardedDataParallel) or not any(isinstance(part, Teacher) for part in model.modules()):
        return nullcontext()
    whole: AbstractContextManager[None] = FullyShardedDataParallel.summon_full_params(model, writeback=True)
    return whole
