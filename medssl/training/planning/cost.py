"""What a run will cost, measured on a few trial steps with real crops before the first step.

The trial works on a copy of the module and leaves the random state as it was, so the run itself is unchanged bit for bit.
"""

import copy
import math
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medssl.data.sampling import Batches
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder, TokenEncoder
from medssl.training.planning.footprint import STATE
from medssl.training.ranks import own_device
from medssl.training.scale.compiling import compile_parts
from medssl.training.settings import Training

_TRIALS = 3  # steps; the first warms caches up and is not timed
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Plan:
    """An estimate for one run.

    Args:
        parameters: Numbers that are trained.
        crops: A step, over all devices; a pair is two crops, and a bag as many as it has slices.
        tokens: A step, over all devices; 0 where the encoder has none.
        step_seconds: One optimiser step on this machine, without cutting crops; not a number where the network is spread over devices.
        feed_seconds: Cutting the crops of one step in one process, of scans that were opened before.
        watch_seconds: All looks at fixed crops or validation scans that are to come.
        workers: Processes that cut crops beside training; 0 when training waits for crops.
        memory_bytes: What trial steps took beyond the process as it was: memory of the GPU where there is one, else of the process. Where
            the network is spread over devices, a device's share of weights, gradients and optimiser, counted.
        steps: Steps still to go.
        checkpoint_bytes: On the disk, the newest and the one before.
        epochs: Crops of the whole run over scans of the data set.
        unused: Whether some parameters get no gradient.
    """

    parameters: int
    crops: int
    tokens: int
    step_seconds: float
    feed_seconds: float
    watch_seconds: float
    workers: int
    memory_bytes: int
    steps: int
    checkpoint_bytes: int
    epochs: float
    unused: bool

    @property
    def seconds(self) -> float:
        """The steps still to go, with the wait for crops and what watches them."""
        wait = max(0.0, self.feed_seconds / self.workers - self.step_seconds) if self.workers else self.feed_seconds
        return self.steps * (self.step_seconds + wait) + self.watch_seconds

    @property
    def feed_ratio(self) -> float:
        """Crops cut over crops used in the same time; from 1 on the input keeps up; not a number without the time of a step."""
        return self.step_seconds * max(1, self.workers) / max(self.feed_seconds, 1e-9)

    def rows(self) -> list[tuple[str, str]]:
        """What it is and how much, for people."""
        measured = not math.isnan(self.step_seconds)
        keeps_up = "keeps up" if self.feed_ratio >= 1 else "is the limit: give feed.workers"
        step = f"{self.step_seconds:.3f} and" if measured else "not tried where a network is spread over devices;"
        return [
            ("parameters", f"{self.parameters:,}"),
            ("crops a step", f"{self.crops:,}"),
            ("tokens a step", f"{self.tokens:,}" if self.tokens else "-"),
            ("seconds a step", f"{step} {self.feed_seconds:.3f} to cut its crops"),
            ("input", f"{keeps_up} ({self.feed_ratio:.1f} times what a step uses)" if measured else "-"),
            ("memory", self._memory + ("" if measured else " before activations")),
            ("disk", f"{self.checkpoint_bytes / 1e6:,.0f} MB of checkpoints"),
            ("crops for each scan", f"{self.epochs:,.1f}"),
            ("watching", _duration(self.watch_seconds) if self.watch_seconds else "-"),
            ("time", f"{_duration(self.seconds)} for {self.steps:,} steps" if measured else f"{self.steps:,} steps"),
        ]

    @property
    def _memory(self) -> str:
        """A step may fit into what an earlier run of the same program took and holds."""
        return f"{self.memory_bytes / 1e6:,.0f} MB a device" if self.memory_bytes else "what the process holds already"

    def __str__(self) -> str:
        """One line for the log."""
        return "plan: " + "; ".join(f"{name} {value}" for name, value in self.rows())


@runtime_checkable
class Watcher(Protocol):
    """What looks at a network every so many steps while it is trained."""

    def watch_seconds(self, module: L.LightningModule, *, steps: int, done: int) -> float:
        """What all looks of a run will take, from a part of one.

        Args:
            module: A copy of what is trained, where it is trained.
            steps: Of the run.
            done: Steps that are behind it.
        """


def estimate(
    module: L.LightningModule, loader: DataLoader[Any], training: Training, *, scans: int, done: int = 0, watchers: Sequence[Watcher] = ()
) -> Plan:
    """Time a few steps of one device on a copy of the module.

    Args:
        module: What will be trained, with `training_step` and `configure_optimizers`; it is not changed.
        loader: Batches of the run, each one part of a step over all devices.
        training: Steps, optimiser and hardware.
        scans: Of the data set.
        done: Steps that are behind a run that goes on.
        watchers: What looks at the network meanwhile.
    """
    devices, trained = training.devices * training.num_nodes, sum(p.numel() for p in module.parameters() if p.requires_grad)
    sharded, whole = training.strategy == "fsdp", sum(parameter.numel() for parameter in module.parameters())
    device = own_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _remembered() as memory:  # by itself it warns of the other GPUs
        batches, feed_seconds = _cut(loader)
        seconds, watched, unused = math.nan, 0.0, False
        if not sharded:
            trial = copy.deepcopy(module).to(device)
            seconds, unused = _steps(trial, [_share(batch, devices) for batch in batches], training)
            watched = sum(watcher.watch_seconds(trial, steps=training.steps, done=done) for watcher in watchers)
    image = batches[0]["image"]
    crops = _crops(module, image) * training.accumulate
    return Plan(
        parameters=trained,
        crops=crops,
        tokens=crops * _tokens(module, image),
        step_seconds=seconds * training.accumulate,
        feed_seconds=feed_seconds * training.accumulate / devices,
        watch_seconds=watched,
        workers=loader.num_workers,
        memory_bytes=(4 * whole + (STATE - 4) * trained) // devices if sharded else memory[0],
        steps=training.steps - done,
        checkpoint_bytes=2 * (4 * whole + 8 * trained),  # AdamW keeps two moments
        epochs=crops * training.steps / scans,
        unused=unused,
    )


def _cut(loader: DataLoader[Any]) -> tuple[list[dict[str, Tensor]], float]:
    """The first batches of the run, cut in this process, and the seconds that one takes where its scans are open."""
    dataset, size, batches, times = cast(_Batched, loader.dataset), cast(Batches, loader.batch_sampler).size, [], []
    for number in range(_TRIALS):
        numbers = range(number * size, (number + 1) * size)
        dataset.__getitems__(numbers)  # each scan is checked, and its body found, once in a run
        start = time.perf_counter()
        batches.append(dataset.__getitems__(numbers))
        times.append(time.perf_counter() - start)
    return batches, min(times)


class _Batched(Protocol):
    """A data set that gives whole batches."""

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The samples of these numbers."""


def _share(batch: dict[str, Tensor], devices: int) -> dict[str, Tensor]:
    return {name: value[: len(value) // devices] for name, value in batch.items()}


def _steps(trial: L.LightningModule, batches: list[dict[str, Tensor]], training: Training) -> tuple[float, bool]:
    """Seconds of one forward, backward and optimiser step, and whether some parameter had no gradient."""
    device = trial.device
    trial.log_dict = trial.log = _unlogged  # type: ignore[method-assign]
    compile_parts(trial, training)
    optimizer = cast(dict[str, Any], trial.configure_optimizers())["optimizer"]
    times = []
    for number in range(_TRIALS):
        batch = trial.transfer_batch_to_device(batches[number], device, 0)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=training.resolved_precision == "bf16-mixed"):
            loss = trial.training_step(batch, number)
        cast(Tensor, loss).backward()  # type: ignore[no-untyped-call]
        unused = any(parameter.requires_grad and parameter.grad is None for parameter in trial.parameters())
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:]), unused


def _unlogged(*args: object, **kwargs: object) -> None:
    """What a trial step logs is dropped."""
    del args, kwargs


def _crops(module: nn.Module, image: Tensor) -> int:
    """Crops in a batch (B, C, *S), with those of pairs or bags (B, N, C, *S)."""
    spatial_dims = next(part.spatial_dims for part in module.modules() if isinstance(part, (Encoder, Network)))
    return math.prod(image.shape[: -spatial_dims - 1])


def _tokens(module: nn.Module, image: Tensor) -> int:
    """Tokens of one crop where the encoder is a transformer, else 0."""
    encoder = next((part for part in module.modules() if isinstance(part, Encoder)), None)
    if not isinstance(encoder, TokenEncoder):
        return 0
    shape = image.shape[-encoder.spatial_dims :]
    return int(torch.tensor([size // patch for size, patch in zip(shape, encoder.patch, strict=True)]).prod())


@contextmanager
def _remembered() -> Iterator[list[int]]:
    """A list that holds the bytes that the block took at most, once it has ended."""
    taken: list[int] = []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats(own_device())
        yield taken
        taken.append(torch.cuda.max_memory_allocated(own_device()))
        return
    before = _resident()
    yield taken
    taken.append(max(0, _peak() - before))


def _resident() -> int:
    """Bytes of this process now; on Linux the peak is forgotten, so that it counts from here. The peak so far where it cannot be."""
    if not _STATUS.is_file():
        return _peak()
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:  # some containers and kernels have no such file, or none to write to
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """Most bytes of this process so far."""
    if _STATUS.is_file():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    """A field of the process's status in bytes; the kernel gives kB."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
