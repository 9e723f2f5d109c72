"""A training run from store to bundle: its folder, its logs, its checkpoints."""

import datetime
import errno
import hashlib
import importlib.metadata
import logging
import platform
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning as L
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor
from torch.utils.data import DataLoader

from medssl.errors import ConfigError, ConflictError, NoSpaceError, UsageError
from medssl.files import write_text
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.training.callbacks import Divergence, ProgressLine, Terminated
from medssl.training.checkpoints import Checkpoints, WholeFiles, newest
from medssl.training.logs import logs_of
from medssl.training.module import TrainingModule
from medssl.training.planning.cost import Plan, Watcher, estimate
from medssl.training.ranks import environment, helped, leads
from medssl.training.scale.compiling import compile_parts
from medssl.training.scale.sharding import spread
from medssl.training.settings import Training

logger = logging.getLogger(__name__)

_PACKAGES = ("medssl", "torch", "monai", "lightning", "numpy")


Ended = dict[str, Tensor] | Plan | None
"""How training ends: the weights, a plan alone, or nothing in a process that helped."""


@dataclass(frozen=True)
class Run:
    """A run folder: `config.yaml`, `logs/`, `checkpoints/`, `pictures/`, `bundle/`.

    Args:
        folder: Where the run lives.
        config: The resolved configuration, as text.
        resume: Go on from the newest checkpoint.
        command: Arguments of `medssl` that start this run again in another process.
        plan_only: Estimate what it will cost, and leave nothing.
    """

    folder: Path
    config: str
    resume: bool = False
    command: tuple[str, ...] = ()
    plan_only: bool = False

    def open(self) -> None:
        """Make the folder and record the configuration; the leading process does, where it is not for a plan alone.

        Raises:
            ConflictError: See `check`.
            UsageError: See `check`.
        """
        if self.plan_only or not leads():
            return
        self.check()
        write_text(self.folder / "config.yaml", self.config)

    def check(self) -> None:
        """Whether the folder is free, or holds the run to go on with.

        Raises:
            ConflictError: It holds a run already, or one of another configuration.
            UsageError: There is nothing to go on with.
        """
        record = self.folder / "config.yaml"
        if record.is_file():
            if not self.resume:
                raise ConflictError(f"{self.folder.name} holds a run already; give another out, or --resume true to go on with it")
            if record.read_text(encoding="utf-8") != self.config:
                raise ConflictError(f"{self.folder.name} was started with another configuration; give another out, or the same config")
        elif self.resume:
            raise UsageError(f"nothing to resume in {self.folder.name}; run it without --resume first")

    @property
    def config_hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the configuration."""
        return hashlib.sha256(self.config.encode()).hexdigest()[:12]

    @property
    def recipe(self) -> dict[str, object]:
        """The configuration without what is of this machine: where the store, another bundle and other files lie."""
        fields = yaml.safe_load(self.config)
        del fields["feed"]["store"]
        return {name: without_folders(value) for name, value in fields.items() if name not in ("config", "bundle", "out", "resume")}

    @cached_property
    def start(self) -> tuple[Path | None, int]:
        """The newest checkpoint to go on from and the steps behind it; None and 0 for a new run.

        Raises:
            BundleError: The checkpoints are damaged.
        """
        return newest(self.folder / "checkpoints") if self.resume else (None, 0)

    @property
    def done(self) -> int:
        """Steps behind the checkpoint to go on from."""
        return self.start[1]


def without_folders(value: object) -> object:
    """A configuration in which absolute paths, such as those of weights of others, are names of files alone."""
    if isinstance(value, dict):
        return {name: without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def fit(module: TrainingModule, training: Training, *, run: Run, loader: DataLoader[Any], scans: int, callbacks: list[L.Callback]) -> Ended:
    """Train to the last step, with progress bar, CSV and TensorBoard logs and a checkpoint every `checkpoint_steps`.

    Args:
        module: What is trained.
        training: Steps, optimiser and hardware.
        run: Where the run is kept.
        loader: The batches that are left.
        scans: Of the data set, for the plan.
        callbacks: What else goes along.

    Returns:
        The whole state of the module on the leading process, None on the others, whose work ends here, or the plan where that is all.

    Raises:
        ConfigError: A strategy that this machine cannot run, or other machines that it was not told how to find.
        NoSpaceError: The disk is full; the previous checkpoint is intact.
        DivergenceError: The loss or weights are no numbers any more; the previous checkpoint is intact.
        KeyboardInterrupt: Ctrl-C; the previous checkpoint is intact.
    """
    if not run.plan_only:
        training.check_machine()
    watchers = [callback for callback in callbacks if isinstance(callback, Watcher)]
    plan = estimate(module, loader, training, scans=scans, done=run.done, watchers=watchers)
    if run.plan_only:
        return plan
    if leads():
        logger.info("%s", plan)
    run.open()
    compile_parts(module, training)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # which accelerator was found, and product tips
    weights = Weights()
    with helped(run.command, training.devices), _quiet(), _space_named(run), _interrupts():
        trainer = _trainer(training, run, title=module.title, unused=plan.unused, callbacks=[*callbacks, weights])
        trainer.fit(module, loader, ckpt_path=run.start[0], weights_only=True)
    return weights.whole if leads() else None


def untrained(network: Network, run: Run) -> Ended:
    """How a run ends that has nothing to train: with the weights as they are.

    Raises:
        ConfigError: A plan is asked for.
    """
    if run.plan_only:
        raise ConfigError("this protocol trains nothing, so there is nothing to plan; run it without --plan")
    run.open()
    return {f"network.{name}": tensor for name, tensor in network.state_dict().items()} if leads() else None


def _trainer(training: Training, run: Run, *, title: str, unused: bool, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's trainer with the logs, checkpoints and progress of a run."""
    every = training.checkpoint_steps
    return L.Trainer(
        max_steps=training.steps,
        accelerator="auto",
        devices=training.devices,
        num_nodes=training.num_nodes,
        strategy=strategy(training, unused=unused),
        plugins=[WholeFiles(), environment()],
        accumulate_grad_batches=training.accumulate,
        use_distributed_sampler=False,  # batches know their process
        precision=training.resolved_precision,
        sync_batchnorm=torch.cuda.is_available() and training.devices * training.num_nodes > 1,
        gradient_clip_val=training.clip,
        logger=logs_of(run.folder, every=min(10, every), done=run.done),
        callbacks=[
            Terminated(),
            ProgressLine(title, every=every),
            *callbacks,
            Divergence(every),
            Checkpoints(run.folder / "checkpoints", every=every),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=min(10, every),
        deterministic="warn",
    )


class Weights(L.Callback):
    """Keeps the whole weights of the end of training, gathered where they are spread over devices."""

    def __init__(self) -> None:
        self.whole: dict[str, Tensor] = {}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather, on all processes together."""
        del pl_module
        self.whole = {name: tensor.detach().cpu() for name, tensor in trainer.strategy.lightning_module_state_dict().items()}


Part = TypeVar("Part", Encoder, Network)


def with_weights(part: Part, weights: dict[str, Tensor], prefix: str) -> Part:
    """A part of a trained module, built anew with its weights: training may have spread the old one over devices.

    Args:
        part: The part that was trained.
        weights: State of the whole module, from `fit`.
        prefix: Name of the part in the module, such as `objective.encoder`.
    """
    whole = part.architecture().build()
    if isinstance(whole, Network) and isinstance(part, Network):
        whole.outputs = part.outputs
    whole.load_state_dict({name.removeprefix(f"{prefix}."): tensor for name, tensor in weights.items() if name.startswith(f"{prefix}.")})
    return cast(Part, whole)


def strategy(training: Training, *, unused: bool) -> Strategy | str:
    """How several devices share the work.

    Args:
        training: Asks for it.
        unused: Whether a step leaves some parameters without gradient.
    """
    if training.strategy == "fsdp":
        return spread()
    if training.strategy == "auto" and training.devices * training.num_nodes == 1:
        return "auto"
    return DDPStrategy(find_unused_parameters=unused)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on workers and tips, not about this run
        yield


@contextmanager
def _interrupts() -> Iterator[None]:
    """Ctrl-C as Python has it, on the leading process: Lightning makes an exit with code 1 of it, and takes no further one."""
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt) or not leads():
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error


@contextmanager
def _space_named(run: Run) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(f"no space left for {run.folder.name}; free some and run again with --resume true") from error
        raise


def facts(run: Run, training: Training, *, seed: int, manifest: str, patients: int, scans: int) -> dict[str, object]:
    """What the bundle records of a run."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_hash": run.config_hash,
        "config": run.recipe,
        "manifest_hash": manifest,
        "seed": seed,
        "steps": training.steps,
        "precision": training.resolved_precision,
        "threads": torch.get_num_threads(),
        "patients": patients,
        "scans": scans,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}
