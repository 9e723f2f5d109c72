"""One step of every method on 6 samples, or on a half of them as one of two processes: `sharded_step.py RANK FOLDER`."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.text import TextTower
from medssl.models.vit import ViT
from medssl.objectives.dino import DINO, LocalCrops, Sharpening
from medssl.objectives.hybrid import Hybrid
from medssl.objectives.image_text import ImageText
from medssl.objectives.mae import MAE
from medssl.objectives.moco import MoCo
from medssl.objectives.objective import Objective
from medssl.objectives.simclr import Contrast, SimCLR
from medssl.objectives.simmim import SimMIM
from medssl.objectives.spark import SparK
from medssl.objectives.triplet import Triplet
from medssl.objectives.vicreg import VICReg
from medssl.views.batch import Batch
from medssl.views.streams import Streams

SAMPLES = 6
PATIENTS = [0, 1, 2, 3, 2, 4]  # one of them in both processes
SENTENCES = ["lesion left", "", "normal", "lesion left", "stable", ""]  # two processes have unlike numbers of them

distil = partial(DINO, prototypes=8, hidden=16, local_crops=LocalCrops(1), koleo=0.1, frozen=0.0)

METHODS: Mapping[str, Callable[[ViT], Objective]] = {
    "mae": partial(MAE, decoder_width=16, decoder_depth=1),
    "simmim": SimMIM,
    "spark": lambda _: SparK(ResidualEncoder(spatial_dims=2, stage_widths=(4, 8), stage_blocks=(1, 1)), block=(4, 4)),
    "simclr": partial(SimCLR, projection=8),
    "simclr_weighted": partial(SimCLR, projection=8, contrast=Contrast(decoupled=True, sigma=0.5, beta=0.5, tau_plus=0.1)),
    "moco": partial(MoCo, projection=8, hidden=16),
    "vicreg": partial(VICReg, expansion=16),
    "triplet": partial(Triplet, projection=8, margin=1.0),
    "dino": partial(distil, sharpening=Sharpening(balance="centre")),
    "dino_sinkhorn": partial(distil, sharpening=Sharpening(balance="sinkhorn")),
    "hybrid": partial(Hybrid, decoder_width=16, decoder_depth=1, hidden=16),
    "image_text": lambda encoder: ImageText(encoder, text=TextTower(width=16, depth=1, heads=2)),
}


def batch(numbers: range) -> Batch:
    """Samples of two crops each, with background that differs from sample to sample."""
    generator, part = torch.Generator().manual_seed(3), slice(numbers.start, numbers.stop)
    images = torch.randn(SAMPLES, 2, 1, 16, 16, generator=generator)
    corner = torch.randint(0, 8, (SAMPLES, 2, 2), generator=generator).float()
    corner[4] = float("nan")  # crops of two scans
    level = torch.linspace(-1, 0.5, SAMPLES).view(-1, 1, 1).expand(-1, 2, -1)
    text = torch.tensor([[*said.encode(), *[0] * (16 - len(said))] for said in SENTENCES], dtype=torch.uint8)
    present = torch.ones(len(numbers), 2, 1, dtype=torch.bool)
    return Batch(images[part], Streams.of(0, numbers), torch.tensor(PATIENTS)[part], corner[part], level[part], present, text[part])


class Total(nn.Module):
    """An objective as Lightning's DDP has it: what comes out is the loss to go back from."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective(batch).total


def learned(method: str, numbers: range, together: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
    """The loss, the buffers and the gradients of one step, in a module that processes train together."""
    torch.manual_seed(0)
    objective = METHODS[method](ViT((4, 4), width=24, depth=1, heads=2, mask_token=True))
    model = together(Total(objective))
    loss = model(batch(numbers))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in objective.named_parameters() if parameter.grad is not None}
    return {"loss": loss.detach(), **dict(objective.named_buffers()), **gradients}


def main(rank: int, folder: Path) -> None:
    """Save what each method learns in this process."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half, together = SAMPLES // 2, partial(DistributedDataParallel, find_unused_parameters=True)
    for method in METHODS:
        torch.save(learned(method, range(half * rank, half * (rank + 1)), together), folder / f"{method}_{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
