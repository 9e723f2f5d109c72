import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

STEP = Path(__file__).with_name("sharded_step.py")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hybrid", "image_text"])
def test_two_processes_have_the_loss_and_the_gradients_of_one_with_the_whole_batch(tmp_path: Path, root: Path, method: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    arguments = [["one"], ["two", "0", str(tmp_path / "meet")], ["two", "1", str(tmp_path / "meet")]]
    runs = [subprocess.Popen([sys.executable, STEP, method, tmp_path / out, *rest], env=environment) for out, *rest in arguments]
    assert [run.wait(300) for run in runs] == [0, 0, 0]
    alone, together = torch.load(tmp_path / "one"), torch.load(tmp_path / "two")
    assert len(alone) == len(together) > 10
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
