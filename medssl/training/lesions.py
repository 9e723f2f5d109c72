"""What segmenters and classifiers share: augmentation, optimiser, logging."""

from abc import abstractmethod

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from medssl.data.dataset import Sample
from medssl.models.architecture import Network
from medssl.objectives.processes import rank
from medssl.training.protocols import FULL, Protocol, freeze, hold, settle
from medssl.training.settings import Training, matrices
from medssl.views.augment import Augment, augment
from medssl.views.streams import Streams, mixed


class LesionModule(L.LightningModule):
    """Train a lesion network on labelled crops.

    Args:
        network: What is trained.
        training: Steps and optimiser.
        views: How crops are varied.
        seed: Views of step n are a function of this seed and n.
        protocol: Which weights learn, and how fast.
    """

    def __init__(self, network: Network, training: Training, *, views: Augment, seed: int, protocol: Protocol = FULL) -> None:
        super().__init__()
        self.network, self.training_settings, self.views, self.seed = network, training, views, seed
        self.decayed, self.paces = matrices(network), protocol.paces(network, training)
        freeze(network, self.paces)

    @abstractmethod
    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss of logits against masks (B, 1, *S) or labels (B,)."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one varied batch."""
        settle(self.network, self.paces, self.global_step)
        torch.manual_seed(mixed(self.seed, self.global_step, batch_idx, rank()))  # of what layers draw, such as dropout
        streams = Streams.of(self.seed, batch["number"].tolist())
        view = augment(batch["image"], self.views, streams=streams, masks=batch["lesion"])
        loss = self.loss(self.network(view.images), batch["lesion"] if view.masks is None else view.masks, batch["label"])
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(view.images))
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Weights that rest at this step stay as they are."""
        del optimizer
        hold(self.network, self.paces, self.global_step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW at the paces of the protocol, by step."""
        optimizer, scheduler = self.training_settings.optimizer(self.network, self.decayed, self.paces)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
