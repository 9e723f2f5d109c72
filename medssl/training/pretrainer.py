"""The one module that drives every pretraining objective."""

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from medssl.data.dataset import Sample
from medssl.objectives.objective import Objective
from medssl.training.settings import Training


class Pretrainer(L.LightningModule):
    """Minimise an objective's loss; everything method-specific lives in the objective.

    Args:
        objective: The method.
        training: Steps and optimiser.
        seed: Masks and views of step n are a function of this seed and n.
    """

    def __init__(self, objective: Objective, training: Training, *, seed: int) -> None:
        super().__init__()
        self.objective, self.training_settings, self.seed = objective, training, seed

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch of crops."""
        del batch_idx
        loss = self.objective(batch["image"], step_generator(self.seed, self.global_step))
        self.log_dict({f"train/{name}": term for name, term in loss.terms.items()}, prog_bar=True, batch_size=len(batch["image"]))
        total: Tensor = loss.total
        return total

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine, by step."""
        optimizer, scheduler = self.training_settings.optimizer(self.objective)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of randomness of one step, the same after a resume."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
