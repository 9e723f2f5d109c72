"""The help of every command answers, and answers without loading what only the work itself needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MEDSSL = Path(sys.executable).with_name("medssl")
COMMANDS = re.findall(r"^\| `medssl ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
HEAVY = {"torch", "monai", "lightning", "pandas", "scipy", "sklearn", "skimage", "SimpleITK", "matplotlib", "streamlit"}


def test_the_readme_lists_the_commands():
    assert {"demo", "check", "prepare", "pretrain", "finetune", "evaluate", "score", "report", "review"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_readme_answers_help(command: str):
    done = subprocess.run([MEDSSL, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"medssl {command}" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)], ids=str)
def test_help_loads_no_heavy_library(command: list[str]):
    done = subprocess.run([sys.executable, "-X", "importtime", MEDSSL, *command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "medssl.cli" in loaded
    assert loaded & HEAVY == set()


def test_help_names_every_command_of_the_readme():
    done = subprocess.run([MEDSSL, "--help"], capture_output=True, text=True, check=False)
    assert [command for command in COMMANDS if command not in done.stdout] == []


def test_an_unknown_command_is_a_usage_error_without_a_traceback():
    done = subprocess.run([MEDSSL, "diagnose"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
