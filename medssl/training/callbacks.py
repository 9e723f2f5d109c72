"""What a run leaves to look at while it goes on."""

import logging
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medssl.training.pretrainer import Pretrainer, step_generator

logger = logging.getLogger(__name__)


class Pictures(L.Callback):
    """Reconstructions of fixed crops with fixed masks after every epoch, as PNG.

    Args:
        images: (B, C, *S) crops that stay the same.
        folder: Where pictures go.
        seed: Fixes the masks.
    """

    def __init__(self, images: Tensor, folder: Path, *, seed: int) -> None:
        self.images, self.folder, self.seed = images, folder, seed

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, where the objective has something to show."""
        if not isinstance(pl_module, Pretrainer) or not trainer.is_global_zero:
            return
        pictures = pl_module.objective.picture(self.images.to(pl_module.device), step_generator(self.seed, 0))
        if pictures is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            mosaic(pictures).save(self.folder / f"step{trainer.global_step:06d}.png")


class Progress(L.Callback):
    """One log line an epoch: for runs whose output goes to a file, where a progress bar shows nothing."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log step and loss."""
        del pl_module
        terms = ", ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
        logger.info("step %d of %d: %s", trainer.global_step, trainer.max_steps, terms)


def mosaic(pictures: Tensor) -> Image.Image:
    """(V, B, C, *S) as a grey picture: one row a sample, one column a stage; middle channel, middle slice of volumes."""
    shown = pictures[:, :, pictures.shape[2] // 2].float().cpu()
    if shown.ndim == 5:
        shown = shown[..., shown.shape[-1] // 2]
    low, high = torch.quantile(shown[0].flatten(), torch.tensor([0.01, 0.99]))
    grey = ((shown - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).mul(255).byte().numpy()
    rows = [np.concatenate([np.rot90(stage) for stage in sample], axis=1) for sample in grey.swapaxes(0, 1)]
    return Image.fromarray(np.concatenate(rows, axis=0))
