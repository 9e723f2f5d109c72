import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import submitit
from submitit.core.utils import UncompletedJobError

from medssl.errors import BundleError, ConfigError, ConflictError, UsageError
from medssl.training.launch import launch
from medssl.training.scale import cluster
from medssl.training.scale.cluster import Job, Slurm, submit
from medssl.training.settings import Training
from tests.training.scale.test_scale import config

CLUSTER = ["--cluster.gpus", "0"]


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is called here, whose process is that of the tests."""
    monkeypatch.setattr(cluster, "_settle", lambda: None)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


def calls(job: Job) -> list[str]:
    """The arguments that a job runs its command with."""
    seen: list[str] = []
    Job(job.command, job.arguments, job.out, lambda _, args: seen.extend(args), job.again)()
    return seen


@pytest.mark.usefixtures("_settled")
def test_a_job_that_is_put_back_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("pretrain", ("--seed", "1"), str(tmp_path), launch)
    warned, gone_on = Job(job.command, job.arguments, job.out, launch, again=True), ["--seed", "1", "--cluster", "null", "--resume", "true"]
    assert calls(warned) == gone_on[:-2]  # cut off before it made its folder
    (tmp_path / "config.yaml").touch()
    assert calls(warned) == gone_on
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # after a node was lost
    assert calls(job) == gone_on


@pytest.mark.usefixtures("_settled")
def test_a_job_that_begins_does_not_go_on_with_the_run_of_another(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert "--resume" not in calls(Job("pretrain", (), str(tmp_path), launch))


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("damaged"), 4),
        (PermissionError(13, "Permission denied", "/x/out"), 2),
        (UncompletedJobError("Job not requeued because: timed-out too many times."), 2),
    ],
)
def test_an_error_of_a_job_is_one_line_and_its_exit_code(caplog: pytest.LogCaptureFixture, error: Exception, code: int) -> None:
    def fails(*_: object) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        Job("pretrain", (), "run", fails)()
    assert ended.value.code == code
    assert [line for line in caplog.messages if line.startswith("medssl: ")]


def test_a_job_that_is_cut_off_puts_itself_back() -> None:
    job = Job("pretrain", ("--seed", "1"), "run", launch)
    assert job.checkpoint().function == Job("pretrain", ("--seed", "1"), "run", launch, again=True)


def test_processes_that_a_task_forks_leave_the_warning_of_slurm_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks, before = [], signal.getsignal(signal.SIGUSR2)
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child))
    ours = logging.getLogger("medssl")
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(ours, "level", ours.level)
    cluster._settle()
    try:
        hooks[0]()
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_request_says_nodes_and_tasks_of_the_training_and_leaves_out_what_is_not_given() -> None:
    asked = cluster._parameters(Slurm(partition="gpu", qos="long", hours=1.5), Training(devices=4, num_nodes=2))
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"], asked["timeout_min"]) == (2, 4, 4, 90)
    assert (asked["slurm_partition"], asked["slurm_qos"]) == ("gpu", "long")
    assert "slurm_account" not in asked


def test_a_request_says_what_srun_and_the_queue_do_not_do_everywhere() -> None:
    asked = cluster._parameters(Slurm(cpus=6, gpus=0), Training(devices=2))
    assert asked["slurm_srun_args"] == ["--cpus-per-task=6", "--kill-on-bad-exit=1"]
    assert asked["slurm_additional_parameters"] == {"requeue": True}
    assert "gpus_per_node" not in asked


def test_slurm_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", lambda: -1)
    with pytest.raises(ConfigError, match="no srun here"):
        submit(Job("pretrain", (), "run", launch), Slurm(), Training())


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Commands of SLURM that note the environment of what they are given, and refuse it where there is a file `full`."""
    for name in ("srun", "sbatch"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text('#!/bin/sh\nenv > environment\ntest ! -e full || { echo "sbatch: no room" >&2; exit 1; }\necho job 7\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_a_request_that_slurm_refuses_is_an_error_in_its_words(queue: Path, store: Path) -> None:
    (queue / "full").touch()
    with pytest.raises(ConfigError, match="SLURM refuses the job.*no room"):
        launch("pretrain", [*config(store), *CLUSTER, "--out", "run"])


def test_a_job_does_not_take_the_place_of_the_process_that_submits_it(queue: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CPU_BIND", "SLURM_CONF", "MASTER_ADDR", "NODE_RANK"):
        monkeypatch.setenv(name, "1")
    launch("pretrain", [*config(store), *CLUSTER, "--out", "run"])
    given = dict(line.split("=", 1) for line in (queue / "environment").read_text().splitlines() if "=" in line)
    assert given["SLURM_CONF"] == os.environ["SLURM_CPU_BIND"] == "1"
    assert not {"SLURM_JOB_ID", "SLURM_CPU_BIND", "MASTER_ADDR", "NODE_RANK"} & given.keys()


def test_what_would_end_a_job_at_once_is_said_before_it_waits(queue: Path, store: Path) -> None:
    arguments = [*config(store), *CLUSTER, "--out", "run"]
    with pytest.raises(UsageError, match="not a prepared store"):
        launch("pretrain", [*arguments, "--feed.store", "nowhere"])
    with pytest.raises(ConfigError, match="batch_size must be a multiple"):
        launch("pretrain", [*arguments, "--training.devices", "3"])
    with pytest.raises(UsageError, match="holds no bundle"):
        launch("pretrain", [*arguments, "--bundle", "nowhere"])
    (queue / "run").mkdir()
    (queue / "run" / "config.yaml").touch()
    with pytest.raises(ConflictError, match="holds a run already"):
        launch("pretrain", arguments)
    assert not (queue / "environment").exists()


def test_the_local_executor_is_of_one_machine() -> None:
    with pytest.raises(ConfigError, match=r"training.num_nodes is 2"):
        submit(Job("pretrain", (), "run", launch), Slurm(executor="local"), Training(num_nodes=2))


@pytest.mark.parametrize("hours", [0, 0.05])  # a job of three minutes would be warned before it listens
def test_a_request_out_of_range_is_refused(hours: float) -> None:
    with pytest.raises(ConfigError, match="hours"):
        Slurm(hours=hours)
