"""Two processes under DDP with half of a batch each have the loss and the gradients that one has of the whole."""

from pathlib import Path

import pytest
import torch

from tests.halves import run_halves
from tests.objectives.sharded_step import METHODS, SAMPLES, learned

STEP = Path(__file__).with_name("sharded_step.py")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_halves(STEP, tmp_path_factory.mktemp("halves"), PYTHONWARNINGS="error::FutureWarning")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(halves: Path, method: str) -> None:
    whole = learned(method, range(SAMPLES), lambda objective: objective)
    for rank in range(2):
        torch.testing.assert_close(torch.load(halves / f"{method}_{rank}.pt"), whole, atol=1e-5, rtol=1e-3)
