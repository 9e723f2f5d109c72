"""How long and how hard a network is trained, and on what machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from medssl.errors import ConfigError
from medssl.training.ranks import check_nodes
from medssl.training.schedule import Pace, sawtooth

Precision = Literal["32-true", "bf16-mixed"]

_TOKENS = frozenset({"mask_token", "registers", "position_table", "cls_token", "position_embeddings"})  # ours, then MONAI's
_WRAPPED = "_fsdp_wrapped_module."  # what FSDP puts into names


@dataclass(frozen=True)
class Training:
    """Steps, optimiser and hardware of a run.

    Args:
        steps: Optimiser steps in all.
        checkpoint_steps: Steps between two checkpoints.
        learning_rate: Highest rate, after warm-up.
        weight_decay: Of matrices; biases, norms, tokens and tables of positions have none.
        betas: AdamW's decay of its moments.
        warmup: Share of the steps with a rising rate.
        encoder_rate: Factor on the rate of an encoder, in the protocols that move it as a whole.
        clip: Largest norm of the gradient; 0 leaves it as it is.
        precision: `auto` is bfloat16 where the processor or GPU computes it, else float32.
        devices: GPUs, or processes on the CPU, of each node.
        num_nodes: Machines that train together.
        strategy: How several devices share the work: `ddp` copies the network to each, `fsdp` spreads it over them; `auto` is `ddp` where
            there are several.
        accumulate: Parts that a batch is cut into where it does not fit into memory. What a loss takes from the batch is then taken from
            a part: negatives of contrastive methods, `sinkhorn`, `relative` and the spread of DINO, deviations and covariances of VICReg;
            means over voxels that count become means of the parts' means.
        compile: Compile transformer blocks; minutes at the start, worth it for long runs.

    Raises:
        ConfigError: A value out of range.
    """

    steps: int = 1000
    checkpoint_steps: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.1
    encoder_rate: float = 1.0
    clip: float = 1.0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    accumulate: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.checkpoint_steps < 1:
            raise ConfigError(f"steps and checkpoint_steps must be >= 1, got {self.steps} and {self.checkpoint_steps}")
        if self.learning_rate <= 0 or not 0 <= self.warmup < 1:
            raise ConfigError(f"learning_rate must be > 0 and warmup in [0, 1), got {self.learning_rate} and {self.warmup}")
        if min(self.devices, self.num_nodes, self.accumulate) < 1:
            raise ConfigError(f"devices, num_nodes and accumulate must be >= 1, got {self.devices}, {self.num_nodes} and {self.accumulate}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be in [0, 1), got {list(self.betas)}")
        if not (self.weight_decay >= 0 and self.encoder_rate >= 0 and self.clip >= 0):
            found = f"{self.weight_decay}, {self.encoder_rate} and {self.clip}"
            raise ConfigError(f"weight_decay, encoder_rate and clip must be >= 0, got {found}")

    def check_batch(self, batch_size: int) -> None:
        """Whether a batch can be cut into equal parts for all devices.

        Raises:
            ConfigError: It cannot.
        """
        parts = self.devices * self.num_nodes * self.accumulate
        if batch_size % parts:
            raise ConfigError(f"batch_size must be a multiple of devices x num_nodes x accumulate = {parts}, got {batch_size}")

    def check_machine(self) -> None:
        """Whether this machine can run the strategy, and find the others.

        Raises:
            ConfigError: FSDP without a GPU, or several machines that were not told of each other.
        """
        check_nodes(self.num_nodes)
        if self.strategy == "fsdp" and not torch.cuda.is_available():
            raise ConfigError("strategy fsdp needs GPUs, and there is none here; take ddp")

    @property
    def resolved_precision(self) -> Precision:
        """What `auto` means on this machine."""
        if self.precision != "auto":
            return self.precision
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
        )
        return "bf16-mixed" if fast else "32-true"

    def optimizer(self, module: nn.Module, decayed: frozenset[str], paces: Sequence[Pace] = ()) -> tuple[AdamW, LambdaLR]:
        """AdamW over the parameters that are trained, and its warm-up and cosine schedule by step.

        Args:
            module: Whose parameters are trained.
            decayed: Names of those with weight decay, from `matrices` on the module as it was built.
            paces: Which of them learn how fast; empty for all alike.
        """
        trained = {plain_name(name): parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        groups, factors = [], []
        for pace in paces or (Pace(frozenset(trained)),):
            for decays in (False, True):
                alike = [parameter for name, parameter in trained.items() if name in pace.names and (name in decayed) == decays]
                if alike:
                    decay = self.weight_decay if decays else 0.0
                    groups.append({"params": alike, "lr": self.learning_rate * pace.rate, "weight_decay": decay})
                    factors.append(sawtooth(pace.starts, self.steps, warmup=self.warmup))
        optimizer = AdamW(groups, betas=self.betas, fused=True)
        return optimizer, LambdaLR(optimizer, factors)


def plain_name(name: str) -> str:
    """The name of a parameter without what FSDP puts into it."""
    return name.replace(_WRAPPED, "")


def matrices(module: nn.Module) -> frozenset[str]:
    """Names of parameters with more than one axis but tokens and positions; FSDP flattens them later, so they are noted before."""
    named = ((name, parameter) for name, parameter in module.named_parameters() if parameter.ndim > 1)
    return frozenset(name for name, _ in named if name.rpartition(".")[2] not in _TOKENS)
