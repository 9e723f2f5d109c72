"""One step on 6 samples, or as one of two processes on 3 of them: `sharded_step.py METHOD OUT [RANK RENDEZVOUS]`."""

import sys

import torch
from torch import distributed

from medssl.models.text import TextTower
from medssl.models.vit import ViT
from medssl.objectives.hybrid import Hybrid
from medssl.objectives.image_text import ImageText
from medssl.objectives.objective import Objective
from medssl.views.batch import Batch
from medssl.views.streams import Streams

SENTENCES = ["lesion left", "", "normal", "lesion left", "stable", ""]  # two processes have unlike numbers of them
PATIENTS = [0, 1, 2, 3, 2, 4]


def objective(method: str) -> Objective:
    torch.manual_seed(0)
    encoder = ViT((4, 4), width=16, depth=1, heads=2)
    if method == "image_text":
        return ImageText(encoder, text=TextTower(width=16, depth=1, heads=2))
    return Hybrid(encoder, decoder_width=16, decoder_depth=1, hidden=16)


def batch(numbers: range) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(6, 2, 1, 16, 16, generator=generator)
    corner = torch.randint(0, 8, (6, 2, 2), generator=generator).float()
    corner[4] = float("nan")  # crops of two scans
    part = slice(numbers.start, numbers.stop)
    shape = (len(numbers), 2, 1)
    text = torch.tensor([[*said.encode(), *[0] * (16 - len(said))] for said in SENTENCES], dtype=torch.uint8)
    level, present = torch.full(shape, -0.5), torch.ones(shape, dtype=torch.bool)
    return Batch(images[part], Streams.of(0, numbers), torch.tensor(PATIENTS)[part], corner[part], level, present, text[part])


def main(method: str, out: str, rank: str = "", rendezvous: str = "") -> None:
    if rank:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=2)
    module = objective(method)
    loss = module(batch(range(3 * int(rank), 3 * int(rank) + 3) if rank else range(6))).total
    loss.backward()
    gradients = [parameter.grad for parameter in module.trained() if parameter.grad is not None]
    if rank:
        for gradient in gradients:
            distributed.all_reduce(gradient)
            gradient /= 2
    if rank != "1":
        torch.save([loss.detach(), *gradients], out)
    if rank:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
