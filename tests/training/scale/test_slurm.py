"""Jobs on a real SLURM, started here: one controller and two nodes of this machine."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path

import pytest

from medssl.errors import ConfigError
from medssl.training.launch import launch, launch_pretrain
from medssl.training.scale.cluster import Submitted
from tests.training.scale.test_scale import ROOT, TOLERANCE, config, largest_difference, steps_of

NODES = ("127.0.0.2", "127.0.0.3")  # names that lead to an address everywhere on Linux
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
REQUEST = ["--cluster.gpus", "0", "--cluster.memory_gb", "1", "--cluster.cpus", "1", "--cluster.hours", "0.2"]
SETTINGS = """
ClusterName=here
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000
KillWait=2
NodeName={nodes[0]} NodeHostname=localhost Port={ports[1]} CPUs=2 RealMemory=2000
NodeName={nodes[1]} NodeHostname=localhost Port={ports[2]} CPUs=2 RealMemory=2000
PartitionName=all Nodes={nodes[0]},{nodes[1]} Default=YES
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """The configuration of a cluster that lives as long as these tests."""
    if shutil.which("slurmctld", path=SEARCHED) is None:
        pytest.skip("no slurmctld here: make system-deps installs it")
    with tempfile.TemporaryDirectory(prefix="slurm") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "state").mkdir()
        path = folder / "slurm.conf"
        path.write_text(SETTINGS.format(folder=folder, user=getuser(), nodes=NODES, ports=[free_port() for _ in range(3)]))
        for arguments in (["slurmctld"], *(["slurmd", "-N", node] for node in NODES)):
            stack.enter_context(daemon(arguments, path, folder / f"{'-'.join(arguments)}.log"))
        if not becomes(lambda: asked("sinfo", path, "-h", "-t", "idle", "-o", "%D").strip() == "2", seconds=30):
            said = [line for log in folder.glob("*.log") for line in log.read_text().splitlines()[-1:]]
            pytest.skip(f"SLURM does not start here: {'; '.join(said)}")
        yield path


@contextmanager
def daemon(arguments: list[str], settings: Path, log: Path) -> Iterator[None]:
    """A part of SLURM in the foreground, ended with the block."""
    command = [shutil.which(arguments[0], path=SEARCHED) or arguments[0], "-D", "-f", str(settings), *arguments[1:]]
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def becomes(true: Callable[[], bool], *, seconds: float) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def asked(command: str, settings: Path, *arguments: str) -> str:
    """What a command of SLURM says."""
    environment = {**os.environ, "SLURM_CONF": str(settings)}
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False, env=environment).stdout


def fact(settings: Path, job: Submitted, name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", asked("scontrol", settings, "-o", "show", "job", job.job_id))
    return found.group(1) if found else ""


def end_of(settings: Path, job: Submitted) -> str:
    """State of a job that has ended, with what it said where that is no good end."""
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    assert becomes(lambda: fact(settings, job, "JobState") in ended, seconds=400)
    state = fact(settings, job, "JobState")
    return state if state == "COMPLETED" else f"{state}: {log_of(job)}"


def log_of(job: Submitted) -> str:
    return "".join(path.read_text() for path in sorted(job.logs.glob("*.err")))


@pytest.fixture
def submitted(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], Submitted]]:
    """Puts a pretraining into the queue, from the folder of the test; what is left of it goes with the test."""
    monkeypatch.setenv("SLURM_CONF", str(slurm))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)

    def submit(arguments: list[str]) -> Submitted:
        job = launch("pretrain", [*arguments, *REQUEST])
        assert isinstance(job, Submitted)
        return job

    yield submit
    asked("scancel", slurm, "--user", getuser())
    assert becomes(lambda: not asked("squeue", slurm, "-h"), seconds=60)


@pytest.mark.slow
def test_two_nodes_pretrain_to_the_weights_of_one_process(
    tmp_path: Path, store: Path, slurm: Path, submitted: Callable[[list[str]], Submitted]
) -> None:
    job = submitted([*config(store, num_nodes=2), "--out", "there"])
    launch_pretrain([*config(store, name="here.yaml"), "--out", "here"])
    assert end_of(slurm, job) == "COMPLETED"
    assert largest_difference(tmp_path / "here", tmp_path / "there") < TOLERANCE
    assert "step 4 of 4" in log_of(job)


@pytest.mark.slow
def test_a_job_that_is_cut_off_goes_back_into_the_queue_and_ends_with_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, store: Path, slurm: Path, submitted: Callable[[list[str]], Submitted]
) -> None:
    arguments = [*config(store, steps=300, checkpoint_steps=10), "--feed.workers", "1"]  # a warning reaches workers, too
    job = submitted([*arguments, "--out", "there"])
    assert becomes(lambda: steps_of(tmp_path / "there") > 1, seconds=400)
    asked("scancel", slurm, "--signal", "USR2", job.job_id)
    whole = launch_pretrain([*arguments, "--out", "here"])
    assert end_of(slurm, job) == "COMPLETED"
    assert fact(slurm, job, "Restarts") == "1"
    assert f'"{whole.weights_id}"' in (tmp_path / "there" / "bundle" / "bundle.json").read_text()


@pytest.mark.slow
def test_an_error_of_a_job_is_one_line_of_its_log_and_its_exit_code(
    store: Path, slurm: Path, submitted: Callable[[list[str]], Submitted]
) -> None:
    job = submitted([*config(store), "--out", "there", "--feed.crops.size", "[17,16]"])
    assert end_of(slurm, job).startswith("FAILED")
    assert [line for line in log_of(job).splitlines() if line.startswith("medssl: ")]
    assert "Traceback" not in log_of(job)
    assert fact(slurm, job, "ExitCode") == "2:0"


def test_what_slurm_refuses_is_said_in_its_words(store: Path, submitted: Callable[[list[str]], Submitted]) -> None:
    with pytest.raises(ConfigError, match="SLURM refuses the job.*partition"):
        submitted([*config(store), "--out", "there", "--cluster.partition", "nowhere"])
