"""A script in two processes, each with its half of the work, as tests of several devices run it."""

import os
import subprocess
import sys
from pathlib import Path


def run_halves(script: Path, folder: Path, **environment: str) -> Path:
    """Run `script RANK FOLDER` as rank 0 and 1 at once, one thread each; the folder where both leave what they found."""
    root = Path(__file__).resolve().parents[1]
    variables = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment}
    runs = [subprocess.Popen([sys.executable, script, rank, folder], env=variables) for rank in "01"]
    assert [run.wait(600) for run in runs] == [0, 0]
    return folder
