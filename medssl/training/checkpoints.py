"""Checkpoints that survive a kill at any moment: each is whole before it takes its name, and the one before it is kept."""

import io
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from medssl.errors import BundleError
from medssl.training.callbacks import Every

logger = logging.getLogger(__name__)

_NEWEST, _BEFORE = "last.ckpt", "before.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Write beside, force it to the disk, then rename; what had the name before becomes `before.ckpt`.

    Lightning's own way writes to the temporary folder and copies where that is another disk, which a kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write one checkpoint."""
        del storage_options
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            path.replace(path.with_name(_BEFORE))
        part.replace(path)
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Checkpoints(Checkpoint):
    """A checkpoint every so many steps, and one of the last step.

    Args:
        folder: Where they go.
        every: Steps between two of them.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.path, self.every = folder / _NEWEST, Every(every)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Save, on all processes together, where a step that is due has just ended."""
        del pl_module, outputs, batch
        if self.every.due(trainer, batch_idx):
            trainer.save_checkpoint(self.path)


def newest(folder: Path) -> tuple[Path | None, int]:
    """The newest readable checkpoint below a folder and the steps behind it; None and 0 where there is none yet.

    Raises:
        BundleError: There are some, and all are damaged.
    """
    found = [path for path in (folder / _NEWEST, folder / _BEFORE) if path.is_file()]
    for path in found:
        try:
            return path, int(torch.load(path, weights_only=True, map_location="cpu", mmap=True)["global_step"])
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError):
            logger.warning("checkpoint %s is damaged; trying the one before", path.name)
    if found:
        raise BundleError(f"the checkpoints of {folder.parent.name} are damaged; start the run again in another folder")
    return None, 0
