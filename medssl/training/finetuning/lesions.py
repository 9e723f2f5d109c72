"""What segmenters and classifiers share: augmentation, optimiser, logging."""

from abc import abstractmethod
from typing import Self

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from medssl.data.dataset import Sample
from medssl.models.architecture import Network
from medssl.objectives.processes import rank
from medssl.training.losses import CrossEntropy, Loss, one_hot
from medssl.training.module import TrainingModule
from medssl.training.protocols.protocol import FULL, Protocol, freeze, hold, settle
from medssl.training.settings import Training, matrices
from medssl.views.augment import Augment, augment
from medssl.views.streams import Streams, mixed


class LesionModule(TrainingModule):
    """Train a lesion network on labelled crops.

    Args:
        network: What is trained.
        training: Steps and optimiser.
        views: How crops are varied.
        seed: Views of step n are a function of this seed and n.
        loss: What is minimised; None for the default of the task.
        weights: (2, channels): how much a channel that does not hold counts in the loss, and how much one that does; None for all alike.
        protocol: Which weights learn, and how fast.
    """

    weights: Tensor | None

    def __init__(
        self,
        network: Network,
        training: Training,
        *,
        views: Augment,
        seed: int,
        loss: Loss | None = None,
        weights: Tensor | None = None,
        protocol: Protocol = FULL,
    ) -> None:
        super().__init__()
        self.criterion = loss or self.default_loss()
        self.register_buffer("weights", weights, persistent=False)
        self.network, self.training_settings, self.views, self.seed = network, training, views, seed
        self.decayed, self.paces, self.awake = matrices(network), protocol.paces(network, training), tuple[bool, ...]()
        freeze(network, self.paces)

    def default_loss(self) -> Loss:
        """What is minimised where nothing else is asked for."""
        return CrossEntropy()

    @abstractmethod
    def loss(self, logits: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss of logits against masks (B, 1, *S) or labels (B,) or (B, C)."""

    def step_loss(self, images: Tensor, lesion: Tensor, label: Tensor) -> Tensor:
        """The loss of what the network says of images."""
        return self.loss(self.network(images), lesion, label)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one varied batch."""
        self._settle()
        torch.manual_seed(mixed(self.seed, self.global_step, batch_idx, rank()))  # of what layers draw, such as dropout
        images, lesion = self._varied(batch)
        loss = self.step_loss(images, lesion, batch["label"])
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(images))
        return loss

    def train(self, mode: bool = True) -> Self:
        """All parts alike; those that rest are put back at the next step."""
        self.awake = ()
        return super().train(mode)

    def _settle(self) -> None:
        """Modes of the parts, where they change: to go through all of them takes as long as a short step on a GPU."""
        awake = tuple(pace.starts[0] <= self.global_step for pace in self.paces)
        if awake != self.awake:
            settle(self.network, self.paces, self.global_step)
            self.awake = awake

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Weights that rest at this step stay as they are."""
        del optimizer
        hold(self.network, self.paces, self.global_step)

    def _varied(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Views of the images, and the masks that moved with them; each slice of a bag is varied on its own."""
        images, lesion, numbers = batch["image"], batch["lesion"], batch["number"].tolist()
        if self.network.bags:
            count = images.shape[1]
            streams = Streams.of(self.seed, (number * count + place for number in numbers for place in range(count)))
            return augment(images.flatten(0, 1), self.views, streams=streams).images.reshape(images.shape), lesion
        if self.network.task == "classification":
            return augment(images, self.views, streams=Streams.of(self.seed, numbers)).images, lesion
        classes = len(self.network.outputs.names) if self.network.task == "segmentation" else 0
        masks = one_hot(lesion[:, 0].long(), classes + 1)[:, 1:] if classes else lesion
        view = augment(images, self.views, streams=Streams.of(self.seed, numbers), masks=masks)
        masks = masks if view.masks is None else view.masks
        return view.images, _numbered(masks) if classes else masks

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW at the paces of the protocol, by step."""
        optimizer, scheduler = self.training_settings.optimizer(self.network, self.decayed, self.paces)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _numbered(masks: Tensor) -> Tensor:
    """(B, classes, *S) of 0 and 1 -> (B, 1, *S), the number of the class, 0 for none."""
    numbers = torch.arange(1, masks.shape[1] + 1, device=masks.device).view(1, -1, *[1] * (masks.ndim - 2))
    return (masks * numbers).amax(dim=1, keepdim=True)
