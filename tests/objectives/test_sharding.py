"""Two processes with half of a batch each learn what one learns from the whole."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from medssl.models.vit import ViT
from medssl.objectives.dino import DINO, LocalCrops, Sharpening
from medssl.objectives.moco import MoCo
from medssl.objectives.objective import Objective
from medssl.objectives.simclr import Contrast, SimCLR
from medssl.objectives.triplet import Triplet
from medssl.objectives.vicreg import VICReg
from medssl.views.batch import Batch
from medssl.views.streams import Streams

METHODS = ("simclr", "moco", "vicreg", "triplet", "dino", "dino_sinkhorn")


def objective_of(method: str) -> Objective:
    torch.manual_seed(0)
    encoder = ViT((4, 4), width=24, depth=1, heads=2)
    if method == "simclr":
        return SimCLR(encoder, projection=8, contrast=Contrast(decoupled=True, sigma=0.5, beta=0.5, tau_plus=0.1))
    if method == "moco":
        return MoCo(encoder, projection=8, hidden=16)
    if method == "vicreg":
        return VICReg(encoder, expansion=16)
    if method == "triplet":
        return Triplet(encoder, projection=8, margin=1.0)
    balance = "sinkhorn" if method == "dino_sinkhorn" else "centre"
    sharpening = Sharpening(balance=balance)  # type: ignore[arg-type]
    return DINO(encoder, prototypes=8, hidden=16, local_crops=LocalCrops(1), koleo=0.1, frozen=0.0, sharpening=sharpening)


def batch_of(samples: range) -> Batch:
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))[samples.start : samples.stop]
    patient = torch.tensor([0, 1, 2, 2, 3, 1])[samples.start : samples.stop]
    return replace(Batch.of(images, Streams.of(0, samples)), patient=patient)


def learned(method: str, samples: range) -> dict[str, torch.Tensor]:
    """The loss, the gradients and the buffers of one step."""
    objective = objective_of(method)
    loss = objective(batch_of(samples)).total
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in objective.named_parameters() if parameter.grad is not None}
    return {"loss": loss.detach(), **dict(objective.named_buffers()), **gradients}


def one_of_two(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for method in METHODS:
        torch.save(learned(method, range(3 * rank, 3 * rank + 3)), f"{folder}/{method}_{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves")
    multiprocessing.spawn(one_of_two, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(halves: Path, method: str) -> None:
    whole = learned(method, range(6))
    parts = [torch.load(halves / f"{method}_{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(parts[0]["loss"], parts[1]["loss"])
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in whole}
    torch.testing.assert_close(mean, whole, atol=1e-5, rtol=1e-3)
