"""A training run from store to bundle: its folder, its logs, its checkpoints."""

import datetime
import errno
import hashlib
import importlib.metadata
import logging
import pickle
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from medssl.errors import BundleError, ConflictError, NoSpaceError, UsageError
from medssl.training.callbacks import ProgressLine
from medssl.training.settings import Training

logger = logging.getLogger(__name__)

_PACKAGES = ("medssl", "torch", "monai", "lightning", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder: `config.yaml`, `logs/`, `checkpoints/`, `pictures/`, `bundle/`.

    Args:
        folder: Where the run lives.
        config: The resolved configuration, as text.
        resume: Go on from the newest checkpoint.
    """

    folder: Path
    config: str
    resume: bool = False

    def open(self) -> None:
        """Make the folder and record the configuration.

        Raises:
            ConflictError: The folder holds a run already, or one of another configuration.
        """
        record = self.folder / "config.yaml"
        if record.is_file():
            if not self.resume:
                raise ConflictError(f"{self.folder.name} holds a run already; give another out, or --resume true to go on with it")
            if record.read_text(encoding="utf-8") != self.config:
                raise ConflictError(f"{self.folder.name} was started with another configuration; give another out, or the same config")
        elif self.resume:
            raise UsageError(f"nothing to resume in {self.folder.name}; run it without --resume first")
        self.folder.mkdir(parents=True, exist_ok=True)
        record.write_text(self.config, encoding="utf-8")

    @property
    def config_hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the configuration."""
        return hashlib.sha256(self.config.encode()).hexdigest()[:12]

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint to resume from."""
        path = self.folder / "checkpoints" / "last.ckpt"
        return path if self.resume and path.is_file() else None

    @property
    def done(self) -> int:
        """Steps behind the checkpoint to resume from, 0 for a new run.

        Raises:
            BundleError: The checkpoint is damaged.
        """
        if self.checkpoint is None:
            return 0
        try:
            return int(torch.load(self.checkpoint, weights_only=True, map_location="cpu")["global_step"])
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
            raise BundleError(f"the checkpoint of {self.folder.name} is damaged; start the run again in another folder") from error


def fit(module: L.LightningModule, training: Training, *, run: Run, loader: object, callbacks: list[L.Callback]) -> None:
    """Train to the last step, with progress bar, CSV and TensorBoard logs and a checkpoint every `checkpoint_steps`.

    Raises:
        NoSpaceError: The disk is full; the previous checkpoint is intact.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # which accelerator was found, and product tips
    checkpoints = ModelCheckpoint(
        run.folder / "checkpoints",
        save_last=True,
        save_top_k=1,
        every_n_train_steps=training.checkpoint_steps,
        enable_version_counter=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on workers and tips, not about this run
        trainer = L.Trainer(
            max_steps=training.steps,
            accelerator="auto",
            devices=training.devices,
            num_nodes=training.num_nodes,
            strategy=training.strategy,
            accumulate_grad_batches=training.accumulate,
            use_distributed_sampler=False,  # batches know their process
            precision=training.resolved_precision,
            gradient_clip_val=training.clip,
            logger=[CSVLogger(run.folder, name="logs", version=""), TensorBoardLogger(run.folder, name="logs", version="")],
            callbacks=[checkpoints, ProgressLine(type(module).__name__, every=training.checkpoint_steps), *callbacks],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=min(10, training.checkpoint_steps),
            deterministic="warn",
        )
        try:
            trainer.fit(module, loader, ckpt_path=run.checkpoint, weights_only=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpaceError(f"no space left for {run.folder.name}; free some and run again with --resume true") from error
            raise


def facts(run: Run, training: Training, *, seed: int, manifest: str, patients: int, scans: int) -> dict[str, object]:
    """What the bundle records of a run."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_hash": run.config_hash,
        "manifest_hash": manifest,
        "seed": seed,
        "steps": training.steps,
        "precision": training.resolved_precision,
        "patients": patients,
        "scans": scans,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}
