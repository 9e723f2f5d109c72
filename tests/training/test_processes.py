import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.views.batch import Batch
from medssl.views.streams import Streams

CHILD = Path(__file__).with_name("one_step.py")
FILTER = "error::FutureWarning"


def environment(**variables: str) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": FILTER, **variables}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_the_parts_of_a_batch_give_a_masked_autoencoder_the_gradients_of_the_whole_where_every_voxel_counts() -> None:
    torch.manual_seed(0)
    method, images = MAE(ViT((4, 4), width=16, depth=1, heads=2)), torch.randn(4, 1, 16, 16)
    whole, parts = [range(4)], [range(2), range(2, 4)]
    found = []
    for batches in (whole, parts):
        method.zero_grad()
        for numbers in batches:
            batch = Batch.of(images[numbers.start : numbers.stop], Streams.of(3, numbers))
            (method(batch).total / len(batches)).backward()
        found.append([parameter.grad.clone() for parameter in method.parameters() if parameter.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "simclr"])
def test_loss_and_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(tmp_path: Path, method: str) -> None:
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    runs = [subprocess.Popen([sys.executable, str(CHILD), method, str(one)], env=environment())]
    runs += [subprocess.Popen([sys.executable, str(CHILD), method, str(two)], env=environment(**group, RANK=rank)) for rank in "01"]
    assert [run.wait(300) for run in runs] == [0, 0, 0]
    alone, together = torch.load(one), torch.load(two)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
