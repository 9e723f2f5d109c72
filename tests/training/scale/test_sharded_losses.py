"""Two processes with half of a batch each have the loss that one has of the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.scale.sharded_losses import LOSSES, SAMPLES, learned

STEP = Path(__file__).with_name("sharded_losses.py")


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(STEP.parents[3]), "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([sys.executable, STEP, rank, tmp_path], env=environment) for rank in "01"]
    assert [run.wait(300) for run in runs] == [0, 0]
    for name in LOSSES:
        whole, parts = learned(name, slice(SAMPLES)), [torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(2)]
        torch.testing.assert_close(parts[0]["loss"], whole["loss"])
        gradient = torch.cat([part["gradient"] for part in parts]) / 2  # processes average their gradients
        torch.testing.assert_close(gradient, whole["gradient"])
