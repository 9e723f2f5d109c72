"""One process of a step of pretraining: writes its loss and gradients; run by test_processes.py with torch.distributed's environment."""

import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.objectives.objective import Objective
from medssl.objectives.processes import processes, rank
from medssl.objectives.simclr import SimCLR
from medssl.views.batch import Batch
from medssl.views.streams import Streams

BATCH = 4


def objective(name: str) -> Objective:
    torch.manual_seed(0)
    encoder = ViT((4, 4), width=16, depth=2, heads=2)
    return {"mae": MAE, "simclr": SimCLR}[name](encoder)


def part_of_batch() -> Batch:
    """This process's samples of one batch whose background differs from sample to sample."""
    images = torch.randn(BATCH, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    share = BATCH // processes()
    mine = range(rank() * share, (rank() + 1) * share)
    batch = Batch.of(images[mine.start : mine.stop], Streams.of(7, mine))
    level = torch.tensor([-9.0, 0.5, -0.3, 0.9]).view(BATCH, 1, 1)[mine.start : mine.stop]
    return Batch(batch.images, batch.streams, torch.tensor(mine), batch.corner, level, batch.present)


def main(name: str, out: str) -> None:
    if out.endswith("two.pt"):
        distributed.init_process_group("gloo")
    method = objective(name)
    trained = DistributedDataParallel(method) if processes() > 1 else method
    loss = trained(part_of_batch()).total
    loss.backward()
    if rank() == 0:
        gradients = {key: parameter.grad for key, parameter in method.named_parameters()}
        torch.save({"loss": loss.detach(), **gradients}, out)
    if processes() > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
