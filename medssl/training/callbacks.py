"""What a run leaves to look at while it goes on."""

import logging
import math
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, cast

import lightning as L
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor, nn

from medssl.errors import DivergenceError

logger = logging.getLogger(__name__)

_BAR_WIDTH = 20  # characters
_READ_SECONDS = 0.5  # between two readings of the loss, each of which waits for the device


@dataclass(frozen=True)
class Every:
    """When something is due: behind each so many steps, and behind the last one.

    Args:
        steps: Steps between two times.
    """

    steps: int

    def due(self, trainer: L.Trainer, batch_idx: int) -> bool:
        """Whether this part of a batch has ended a step that is due."""
        ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        return ends_step and (trainer.global_step % self.steps == 0 or trainer.global_step == trainer.max_steps)

    def left(self, steps: int, *, done: int) -> int:
        """How often it is due in a run of `steps`, of which `done` are behind it."""
        return math.ceil(steps / self.steps) - done // self.steps if done < steps else 0


class Divergence(L.Callback):
    """Ends a run whose loss or weights are no numbers any more, before the next checkpoint or the bundle is written.

    Args:
        every: Steps between two looks.
    """

    def __init__(self, every: int) -> None:
        self.every = Every(every)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Look at the loss, and at the weights: the gradient of a finite loss may not be finite.

        Raises:
            DivergenceError: They are not finite, on this or another process; such weights never recover.
        """
        del batch
        if not self.every.due(trainer, batch_idx) and not trainer.should_stop:
            return
        loss = cast(dict[str, Tensor], outputs)["loss"].isfinite()
        for what, finite in (("loss is", loss), ("weights are", _all_finite(pl_module))):
            if not trainer.strategy.reduce_boolean_decision(bool(finite), all=True):
                raise DivergenceError(
                    f"the {what} not finite at step {trainer.global_step}: training has diverged; lower training.learning_rate, "
                    "or take training.precision 32-true; the checkpoint before is kept"
                )


def _all_finite(module: nn.Module) -> Tensor:
    """Whether all trained weights that lie on this device are finite; the device is waited for once."""
    return torch.stack([weight.detach().isfinite().all() for weight in module.parameters() if weight.requires_grad]).all()


class Terminated(L.Callback):
    """Leaves SIGTERM as it was: Lightning waits for other processes, which may be gone, and ends a run that is cut off with exit code 0.

    Where nothing else was said, the process ends with exit code 143; the checkpoint before is intact.
    """

    def __init__(self) -> None:
        found = signal.getsignal(signal.SIGTERM)
        self.handler = _end if found == signal.SIG_DFL else found

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put it back, just after Lightning took it; signals are the main thread's."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


class _Left(TimeRemainingColumn):
    """The time left, until there is none."""

    def render(self, task: Task) -> Text:
        """As `0:00:50 left`."""
        return Text() if task.finished else super().render(task).append(" left")


class ProgressLine(L.Callback):
    """A bar over all steps of the run with the time left, and now and then a log line for runs whose output goes to a file.

    Args:
        title: What is trained.
        every: Steps between two log lines.
    """

    def __init__(self, title: str, *, every: int) -> None:
        self.every = Every(every)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}", table_column=Column(overflow="fold")),  # on several lines where one is too short
            TimeElapsedColumn(),
            _Left(),
            refresh_per_second=2,
        )
        self.task = self.bar.add_task(title, terms="")
        self.read = -math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, at the step that a resumed run has reached."""
        del pl_module
        self.bar.update(self.task, total=trainer.max_steps, completed=trainer.global_step)
        if trainer.is_global_zero:
            self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """One step further."""
        del pl_module, outputs, batch
        self.bar.update(self.task, completed=trainer.global_step)
        if time.monotonic() - self.read > _READ_SECONDS:
            self.bar.update(self.task, terms=_terms(trainer))
            self.read = time.monotonic()
        if trainer.is_global_zero and self.every.due(trainer, batch_idx):
            logger.info("step %d of %d: %s", trainer.global_step, trainer.max_steps, _terms(trainer))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the bar away, also after an error."""
        del trainer, pl_module, stage
        self.bar.stop()


def _terms(trainer: L.Trainer) -> str:
    return ", ".join(f"{name.removeprefix('train/')} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
