"""What every trained module does alike, whatever it learns."""

from typing import Any

import lightning as L
import torch
from torch import nn
from torch.optim import Optimizer

from medssl.training.scale.sharding import clipped


class TrainingModule(L.LightningModule):
    """Batches that go to a device but for their numbers, and gradients clipped over all devices."""

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return type(self).__name__

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """The batch; numbers of samples stay on the CPU, where their randomness starts: reading them back would wait for the device."""
        return {**super().transfer_batch_to_device(batch, device, dataloader_idx), "number": batch["number"]}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip by the norm of the whole gradient, also where it is spread over devices.

        Lightning's own way refuses a fused AdamW in bfloat16, which has no scale to undo.
        """
        if gradient_clip_val and not clipped(self.trainer.strategy.model, gradient_clip_val):
            nn.utils.clip_grad_norm_((weight for group in optimizer.param_groups for weight in group["params"]), gradient_clip_val)
