import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHILD = Path(__file__).with_name("one_step.py")
FILTER = "error::FutureWarning"


def environment(**variables: str) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": FILTER, **variables}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


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
