"""What a pretrained network makes of crops whose parts it does not see, as pictures."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medssl.data.unlabelled import Unlabelled
from medssl.training.callbacks import Every
from medssl.training.pretraining.pretrainer import Pretrainer, batch_of


class Pictures(L.Callback):
    """Reconstructions of fixed crops with fixed masks every so many steps, in evaluation mode, as PNG.

    Args:
        crops: Crops that stay the same.
        folder: Where pictures go.
        seed: Fixes the masks.
        every: Steps between two pictures.
    """

    def __init__(self, crops: Unlabelled, folder: Path, *, seed: int, every: int) -> None:
        self.crops, self.folder, self.seed, self.every = crops, folder, seed, Every(every)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Draw, where the objective has something to show."""
        del outputs, batch
        if not isinstance(pl_module, Pretrainer) or not trainer.is_global_zero or not self.every.due(trainer, batch_idx):
            return
        crops = pl_module.transfer_batch_to_device(self.crops, pl_module.device, 0)
        objective, training = pl_module.objective, pl_module.objective.training
        pictures = objective.eval().picture(batch_of(crops, self.seed))
        objective.train(training)
        if pictures is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            mosaic(pictures).save(self.folder / f"step{trainer.global_step:06d}.png")


def mosaic(pictures: Tensor) -> Image.Image:
    """(V, B, C, *S) as a grey picture: one row a sample, one column a stage; middle channel, middle slice of volumes."""
    shown = pictures[:, :, pictures.shape[2] // 2].float().cpu()
    if shown.ndim == 5:
        shown = shown[..., shown.shape[-1] // 2]
    low, high = torch.quantile(shown[0].flatten(), torch.tensor([0.01, 0.99]))
    grey = ((shown - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).mul(255).byte().numpy()
    rows = [np.concatenate([stage.T[::-1, ::-1] for stage in sample], axis=1) for sample in grey.swapaxes(0, 1)]
    return Image.fromarray(np.concatenate(rows, axis=0))
