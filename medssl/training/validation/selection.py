"""Which weights of a run are kept: those of the last step, their average over steps, or the best ones on validation scans."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor

from medssl.data.classes import labels_of
from medssl.data.dataset import Case
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.inference import Window
from medssl.training.callbacks import Every
from medssl.training.run import Ended, with_weights
from medssl.training.settings import Training
from medssl.training.validation.answers import classes_in
from medssl.training.validation.points import Metric, is_measurable, measure, scan_answer, score_cases

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which weights are kept; by default those of the last step.

    Args:
        metric: Keeps the best weights by this on validation scans (`medssl.training.validation.points.measure`); null keeps the last.
        every_steps: Steps between two looks at the validation scans; there is one behind the last step as well.
        patience: Ends training after so many looks without a better value; null trains to the last step.
        scans: Validation scans to look at, with and without lesion (or of each named class) in turn, drawn by the seed of the run; null
            for all.
        average: Decay of an exponential moving average of the weights, which is then what is validated and kept; null keeps none.
        mirror: Axes (0 for I, 1 for J, 2 for K) whose mirror images are averaged, in validation and in scoring; null is the left-right
            image alone, and [] none.
        share: Of the patients that a fold learns from, those that its weights are selected on instead, where there are folds.

    Raises:
        ConfigError: A value out of range, or patience without a metric.
    """

    metric: Metric | None = None
    every_steps: int = 100
    patience: int | None = None
    scans: int | None = None
    average: float | None = None
    mirror: tuple[int, ...] | None = None
    share: float = 0.15

    def __post_init__(self) -> None:
        if self.every_steps < 1 or (self.scans is not None and self.scans < 1) or (self.patience is not None and self.patience < 1):
            raise ConfigError(
                f"selection: every_steps, scans and patience must be >= 1, got {self.every_steps}, {self.scans} and {self.patience}"
            )
        if self.average is not None and not 0 < self.average < 1:
            raise ConfigError(f"selection.average must be between 0 and 1, such as 0.999, got {self.average}")
        if not 0 < self.share < 1:
            raise ConfigError(f"selection.share must be between 0 and 1, got {self.share}")
        if self.patience is not None and self.metric is None:
            raise ConfigError(f"selection.patience needs selection.metric: {', '.join(_NEEDS)}")

    @property
    def flips(self) -> bool | tuple[int, ...]:
        """As `Window` takes them."""
        return True if self.mirror is None else self.mirror

    def looked_at(self, cases: Sequence[Case], network: Network, *, seed: int) -> list[Case]:
        """The validation scans of each look: in a random order, with and without lesion in turn, or of each class in turn where named.

        Raises:
            ConfigError: The metric cannot be measured on them, or not with this network.
        """
        shuffled = [cases[index] for index in np.random.default_rng(seed).permutation(len(cases))]
        kinds = [_kind(case) for case in shuffled]
        groups = [[case for case, kind in zip(shuffled, kinds, strict=True) if kind == one] for one in sorted(set(kinds), reverse=True)]
        chosen = [case for turn in zip_longest(*groups) for case in turn if case is not None][: self.scans]
        if self.metric is not None and not is_measurable(network, chosen, self.metric):
            raise ConfigError(
                f"selection.metric {self.metric} cannot be measured on {len(chosen)} validation scans with this network: it needs "
                f"{_NEEDS[self.metric]}; take another metric or more scans"
            )
        return chosen


def _kind(case: Case) -> tuple[bool, tuple[str, ...], tuple[int, ...]]:
    """Scans of one kind are alike to a look: with or without lesion and, where classes are named, of the same ones."""
    ill = scan_answer(case) == 1
    return (ill, tuple(sorted(labels_of(case.row))), tuple(sorted(classes_in(case)))) if case.classes.names else (ill, (), ())


_NEEDS: dict[Metric, str] = {
    "dice": "a segmenter, and a scan with lesion in its mask",
    "class_dice": "a segmenter of named classes, and a scan with one of them in its mask",
    "slice_auroc": "a network that scores slices, and slices with and without lesion",
    "scan_auroc": "scans with and without lesion",
    "macro_auroc": "a classifier of named classes, and scans of two of them",
    "loss": "scans whose answer is known",
}


Plain = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _as_they_are(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights


class Average(L.Callback):
    """An exponential moving average of the weights; its decay rises with the steps, so that first weights are soon forgotten.

    The decay of step n is min(decay, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage`. Running statistics are
    averaged too; counters are those of the last step.

    Args:
        decay: Highest decay.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps, self.every = decay, 0, Every(1)
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the first weights, or put those of a checkpoint where the module is."""
        state = trainer.strategy.lightning_module_state_dict()
        kept = self.weights or state
        self.weights = {name: kept[name].detach().to(tensor.device, copy=True) for name, tensor in state.items()}
        del pl_module

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Move towards the weights of the step that has just ended."""
        del pl_module, outputs, batch
        if not self.every.due(trainer, batch_idx):
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in trainer.strategy.lightning_module_state_dict().items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor, 1 - decay)
            else:
                self.weights[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.steps, self.weights = state_dict["steps"], state_dict["weights"]


@dataclass(frozen=True)
class Look:
    """One look at the validation scans.

    Args:
        step: Steps behind it.
        value: Of the metric.
    """

    step: int
    value: float


class Selector(L.Callback):
    """Looks at validation scans every so many steps, keeps the best weights, and may end training.

    The best weights lie in the checkpoints themselves, so that whatever moment a run is killed at, the weights and the looks that it goes
    on with are those of one step.

    Args:
        selection: The metric, and when.
        cases: The validation scans.
        window: How the network looks at them.
        average: The average that is validated instead of the weights of the step.
        plain: Makes weights of the network that is written from those in training, see `Protocol.plain`.
    """

    def __init__(
        self, selection: Selection, cases: Sequence[Case], window: Window, average: Average | None, *, plain: Plain = _as_they_are
    ) -> None:
        self.metric: Metric = selection.metric or "loss"
        self.every, self.patience = Every(selection.every_steps), selection.patience
        self.cases, self.window, self.average, self.plain = cases, window, average, plain
        self.looks: list[Look] = []
        self.weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Look | None:
        """The best look, of equally good ones the first; None before there is one."""
        return max(self.looks, key=self._worth, default=None)

    def _worth(self, look: Look) -> float:
        return -look.value if self.metric == "loss" else look.value

    @property
    def has_waited(self) -> bool:
        """Whether so many looks as patience lasts have shown nothing better."""
        best = self.best
        return best is not None and self.patience is not None and len(self.looks) - 1 - self.looks.index(best) >= self.patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop where the checkpoint is of a run that had waited."""
        del pl_module
        trainer.should_stop = trainer.should_stop or self.has_waited

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Look, on the leading process, and tell the others."""
        del outputs, batch
        if not self.every.due(trainer, batch_idx):
            return
        weights = self.average.weights if self.average else trainer.strategy.lightning_module_state_dict()
        value = self._value(pl_module, weights) if trainer.is_global_zero else 0.0
        look = Look(trainer.global_step, float(trainer.strategy.broadcast(value)))
        self.looks.append(look)
        if self.best is look and trainer.is_global_zero:
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        for log in trainer.loggers:
            log.log_metrics({f"val/{self.metric}": look.value}, step=look.step)
        logger.info("step %d: validation %s %.4f%s", look.step, self.metric, look.value, " (best)" if self.best is look else "")
        trainer.should_stop = trainer.should_stop or self.has_waited

    def watch_seconds(self, module: L.LightningModule, *, steps: int, done: int) -> float:
        """What all looks will take at most, from the smallest scan: patience may end a run before."""
        small, *_ = sorted(self.cases, key=lambda case: math.prod(case.shape))
        start = time.perf_counter()
        score_cases(cast(Network, module.network), [small], self.window, self.metric)
        voxels = sum(math.prod(case.shape) for case in self.cases)
        return self.every.left(steps, done=done) * (time.perf_counter() - start) * voxels / math.prod(small.shape)

    def _value(self, module: L.LightningModule, weights: dict[str, Tensor]) -> float:
        """The metric of a copy of the network, so that the one in training is left as it is."""
        network = with_weights(cast(Network, module.network), self.plain(weights), "network").to(module.device)
        value = measure(score_cases(network, self.cases, self.window, self.metric), self.metric)
        if value is None:
            raise ConfigError(f"selection.metric {self.metric} cannot be measured on these validation scans; take another one")
        return value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"looks": [(look.step, look.value) for look in self.looks], "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.looks, self.weights = [Look(*look) for look in state_dict["looks"]], state_dict["weights"]


class Keeper:
    """The callbacks of a run that keep weights, and what they kept.

    Args:
        selection: What is kept.
        network: That is trained.
        cases: Validation scans.
        window: How the network looks at them.
        training: Refused where it spreads the weights over devices.
        seed: Draws the scans of each look.
        plain: Makes weights of the network that is written from those in training.

    Raises:
        ConfigError: Weights spread over devices, or a metric that these scans cannot tell of this network.
    """

    def __init__(
        self,
        selection: Selection,
        network: Network,
        cases: Sequence[Case],
        window: Window,
        training: Training,
        *,
        seed: int,
        plain: Plain = _as_they_are,
    ) -> None:
        self.selection = selection
        self.average = None if selection.average is None else Average(selection.average)
        self.selector = None
        if selection.metric is not None:
            self.selector = Selector(selection, selection.looked_at(cases, network, seed=seed), window, self.average, plain=plain)
        if self.callbacks and training.strategy == "fsdp":
            raise ConfigError("selection needs the whole network on each device; set training.strategy to ddp")

    @property
    def callbacks(self) -> list[L.Callback]:
        """In the order in which they must be called."""
        return [callback for callback in (self.average, self.selector) if callback is not None]

    def refuse_idle(self) -> None:
        """Stop where nothing is trained and weights are to be selected all the same.

        Raises:
            ConfigError: There is a metric or an average.
        """
        if self.callbacks:
            raise ConfigError("this protocol trains nothing: leave selection.metric and selection.average out")

    def kept(self, ended: Ended) -> Ended:
        """The weights to keep in place of those of the last step."""
        if not isinstance(ended, dict):
            return ended
        if self.selector is not None:
            return self.selector.weights
        return ended if self.average is None else {name: tensor.cpu() for name, tensor in self.average.weights.items()}

    def facts(self) -> dict[str, object]:
        """What a bundle records of it; nothing where the last weights are kept."""
        if not self.callbacks:
            return {}
        found: dict[str, object] = {"average": self.selection.average}
        if self.selector is not None and self.selector.best is not None:
            found |= {"metric": self.selector.metric, "step": self.selector.best.step, "value": self.selector.best.value}
            found |= {"scans": len(self.selector.cases), "looks": [asdict(look) for look in self.selector.looks]}
        return found
