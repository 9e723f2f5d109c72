"""What a GPU would refuse, round or be waited for, on a device that any machine has (`tests.device`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.elsewhere import METHODS, NETWORKS

ROOT = Path(__file__).resolve().parents[2]
WAITS = {"detector": {"_to_copy"}, "image_text": {"index", "unique_dim"}}
"""Masks become boxes on the processor; which scans have a sentence, and which sentences are alike, has to be known."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A step of each on the processor and on the device."""
    file = tmp_path_factory.mktemp("elsewhere") / "steps.json"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, Path(__file__).with_name("elsewhere.py"), file], check=True, env=variables, timeout=600)
    found: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("name", [*METHODS, *NETWORKS])
def test_another_device_learns_and_says_what_the_processor_does(steps: dict[str, dict[str, Any]], name: str) -> None:
    step = steps[name]
    assert not step["error"], step["error"]
    assert max(step["loss"], step["gradient"], step["scan"]) < 1e-4
    assert step["rounded"] < 0.02


@pytest.mark.parametrize("name", [*METHODS, *NETWORKS])
def test_the_forward_pass_does_not_wait_for_the_device(steps: dict[str, dict[str, Any]], name: str) -> None:
    assert {wait.partition(" at ")[0] for wait in steps[name]["waits"]} == WAITS.get(name, set()), steps[name]["waits"]
