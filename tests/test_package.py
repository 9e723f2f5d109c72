"""The wheel, installed into an empty environment far from the checkout, runs the demo and serves the app."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    must(run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder))
    (built,) = folder.glob("medssl-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, its extras app and dicom, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pins = ROOT / "constraints.txt"
    torch = re.search(r"^torch==\S+$", pins.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert torch is not None
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", pins]
    # torch goes first so that pip takes the same build as `make setup` does.
    must(run(*pip, torch[0], cwd=folder))
    must(run(*pip, f"{wheel}[app,dicom]", cwd=folder))
    return folder / "bin"


@pytest.fixture(scope="module")
def demo(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    must(run(environment / "medssl", "demo", "--preset", "smoke", "--out", folder / "demo", cwd=folder))
    return folder / "demo"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def address(environment: Path, demo: Path, port: int) -> Iterator[str]:
    command = [environment / "medssl", "review", demo / "results", "--port", str(port), "--headless", "true"]
    log = demo.parent / "review.log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=demo.parent, stdout=output, stderr=output, start_new_session=True) as server,
    ):
        yield f"http://127.0.0.1:{port}"
        os.killpg(server.pid, signal.SIGTERM)


def health(address: str) -> str:
    """What the app's health page says, asked until it answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_installed_command_answers_help(environment: Path, tmp_path: Path):
    assert "demo" in must(run(environment / "medssl", "--help", cwd=tmp_path))


def test_the_package_comes_from_the_environment_and_brings_app_and_configs(environment: Path, tmp_path: Path):
    code = "import medssl, pathlib; p = pathlib.Path(medssl.__file__).parent; print(p, *sorted(x.name for x in p.iterdir()), sep='\\n')"
    folder, *names = must(run(environment / "python", "-c", code, cwd=tmp_path)).split()
    assert Path(folder).is_relative_to(environment.parent)
    assert {"app", "configs", "py.typed"} <= set(names)


@pytest.mark.parametrize("module", ["app", "configs", "data_prep", "benchmarks", "tests"])
def test_no_other_top_level_module_is_installed(module: str, environment: Path, tmp_path: Path):
    done = run(environment / "python", "-c", f"import {module}", cwd=tmp_path)
    assert "ModuleNotFoundError" in done.stderr


def test_nothing_pulls_in_torchvision(environment: Path, tmp_path: Path):
    assert "torchvision" not in must(run(environment / "python", "-m", "pip", "list", "--format", "freeze", cwd=tmp_path))


def test_the_demo_leaves_its_report_and_its_results(demo: Path):
    left = ["evaluation/metrics.json", "evaluation/report.html", "results/results.csv", "results/run.json"]
    assert [name for name in left if not (demo / name).is_file()] == []


def test_the_app_serves_the_results_of_the_demo(address: str):
    assert health(address) == "ok"
