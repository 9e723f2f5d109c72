"""The one module that drives every pretraining objective."""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from medssl.data.unlabelled import Unlabelled
from medssl.objectives.objective import Objective
from medssl.objectives.processes import rank
from medssl.training.module import TrainingModule
from medssl.training.scale.sharding import followed
from medssl.training.settings import Training, matrices
from medssl.views.batch import Batch
from medssl.views.streams import Streams, mixed


class Pretrainer(TrainingModule):
    """Minimise an objective's loss; everything method-specific lives in the objective.

    Args:
        objective: The method.
        training: Steps and optimiser.
        seed: Masks and views of a sample are a function of this seed and the sample's number.
    """

    def __init__(self, objective: Objective, training: Training, *, seed: int) -> None:
        super().__init__()
        self.objective, self.training_settings, self.seed = objective, training, seed
        self.decayed = matrices(objective)

    @property
    def title(self) -> str:
        """The method."""
        return type(self.objective).__name__

    def training_step(self, batch: Unlabelled, batch_idx: int) -> Tensor:
        """The loss of one batch of crops."""
        torch.manual_seed(mixed(self.seed, self.global_step, batch_idx, rank()))  # of what layers draw, such as dropped paths
        loss = self.objective(batch_of(batch, self.seed))
        terms = {f"train/{name}": term for name, term in loss.terms.items()}
        self.log_dict(terms, prog_bar=True, batch_size=len(batch["image"]))
        total: Tensor = loss.total
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """One step of the optimiser; then the objective follows, so that a checkpoint holds both."""
        super().optimizer_step(*args, **kwargs)
        with followed(self.trainer.strategy.model):
            self.objective.after_step(min(1.0, (self.global_step + 1) / self.training_settings.steps))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine, by step."""
        optimizer, scheduler = self.training_settings.optimizer(self.objective, self.decayed)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def batch_of(crops: Unlabelled, seed: int) -> Batch:
    """What an objective sees of a batch of crops."""
    return Batch(
        images=crops["image"],
        streams=Streams.of(seed, crops["number"].tolist()),
        patient=crops["patient"],
        corner=crops["corner"],
        level=crops["level"],
        present=crops["present"],
        text=crops["text"],
    )
