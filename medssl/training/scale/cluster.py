"""The same run on a SLURM cluster, through submitit (Facebook AI Research, MIT licence).

submitit pickles the call (a few strings and a function of medssl) into the job's own log folder and reads it back in the job; no file of a
user is read so.
"""

import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medssl.errors import ConfigError, MedSSLError, MissingDependencyError
from medssl.files import refusal
from medssl.models.bundle import Bundle
from medssl.training.ranks import port_of
from medssl.training.settings import Training

logger = logging.getLogger(__name__)

_SHORTEST_HOURS = 0.1  # SLURM warns two and a half minutes before the end at the earliest, when a job must have got as far as listening
_PLACES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Slurm:
    """What a job asks for; nodes and tasks a node are `training.num_nodes` and `training.devices`.

    Args:
        partition: Queue.
        hours: Longest time, 0.1 or more; a job that is cut off is put back into the queue and goes on from its checkpoint.
        memory_gb: Of each node.
        cpus: Cores of each task.
        gpus: GPUs of each task; 0 on a cluster without.
        account: Who pays.
        qos: Quality of service, where the site asks for one.
        constraint: Kind of node, in SLURM's words.
        logs: Folder of job scripts and logs.
        requeues: How often a job that ran out of time goes on; one that is preempted or loses its node always does.
        executor: `local` runs the job on this machine, to see that it runs.

    Raises:
        ConfigError: A value out of range.
    """

    partition: str | None = None
    hours: float = 24.0
    memory_gb: int = 64
    cpus: int = 8
    gpus: int = 1
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    logs: str = "slurm-logs"
    requeues: int = 10
    executor: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.hours < _SHORTEST_HOURS or min(self.memory_gb, self.cpus) < 1 or min(self.gpus, self.requeues) < 0:
            raise ConfigError(
                f"hours must be >= {_SHORTEST_HOURS}, memory_gb and cpus >= 1, gpus and requeues >= 0, "
                f"got {self.hours}, {self.memory_gb}, {self.cpus}, {self.gpus} and {self.requeues}"
            )


@dataclass(frozen=True)
class Submitted:
    """A job in the queue.

    Args:
        job_id: Its number.
        logs: Folder of its logs.
        job: Of submitit.
    """

    job_id: str
    logs: Path
    job: Any


@dataclass(frozen=True)
class Job:
    """What a job does: one command of `medssl`, here and now, from its last checkpoint where there is one.

    Args:
        command: `pretrain` or `finetune`.
        arguments: Its arguments.
        out: Run folder.
        launch: Runs a command with its arguments.
        again: It was put back into the queue by itself.
    """

    command: str
    arguments: tuple[str, ...]
    out: str
    launch: Callable[[str, list[str]], object]
    again: bool = False

    def __call__(self) -> str:
        """Run as the command does on a screen; returns the model id of the bundle, or nothing in a process that helps.

        Raises:
            SystemExit: With the exit code of an error, which is one line of the job's log.
        """
        from submitit.core.utils import UncompletedJobError

        _settle()
        resume = ("--resume", "true") if self._put_back and (Path(self.out) / "config.yaml").is_file() else ()
        try:
            ended = self.launch(self.command, [*self.arguments, "--cluster", "null", *resume])
        except (MedSSLError, OSError, UncompletedJobError) as error:
            ours = _ours(error)
            logger.error("medssl: %s", ours)
            raise SystemExit(ours.exit_code) from error
        if not isinstance(ended, Bundle):
            return ""
        logger.info("bundle %s written", ended.model_id)
        return ended.model_id

    @property
    def _put_back(self) -> bool:
        """Whether this job has begun before; SLURM counts what it puts back after a node was lost, too."""
        return self.again or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0

    def checkpoint(self) -> Any:  # noqa: ANN401
        """What submitit puts back into the queue when the job is cut off."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(replace(self, again=True))


def submit(job: Job, slurm: Slurm, training: Training) -> Submitted:
    """Put a job into the queue.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigError: No SLURM here, or it refuses the request.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError as error:
        raise MissingDependencyError("cluster needs submitit; install it with: pip install 'medssl[cluster]'") from error
    if slurm.executor == "slurm" and submitit.SlurmExecutor.affinity() < 0:
        raise ConfigError("cluster asks for SLURM and there is no srun here; run this on its login node, or set cluster to null")
    if slurm.executor == "local" and training.num_nodes > 1:
        raise ConfigError(f"cluster.executor local runs on one machine, and training.num_nodes is {training.num_nodes}; take slurm, or 1")
    kind = {"slurm": submitit.SlurmExecutor, "local": submitit.LocalExecutor}[slurm.executor]
    executor = submitit.AutoExecutor(folder=Path(slurm.logs) / "%j", cluster=kind.name(), slurm_max_num_timeout=slurm.requeues)
    executor.update_parameters(**_parameters(slurm, training))
    try:
        with _own_environment():
            queued = executor.submit(job)
    except FailedJobError as error:
        raise ConfigError(f"SLURM refuses the job; change what cluster asks for ({' '.join(str(error).split())})") from error
    return Submitted(str(queued.job_id), Path(slurm.logs) / str(queued.job_id), queued)


def _parameters(slurm: Slurm, training: Training) -> dict[str, object]:
    """The request in submitit's words; what is not given is not asked for."""
    asked = {
        "name": "medssl",
        "nodes": training.num_nodes,
        "tasks_per_node": training.devices,
        "gpus_per_node": slurm.gpus * training.devices,
        "cpus_per_task": slurm.cpus,
        "mem_gb": slurm.memory_gb,
        "timeout_min": math.ceil(slurm.hours * 60),
        **{f"slurm_{name}": asdict(slurm)[name] for name in ("partition", "account", "qos", "constraint")},
        "slurm_additional_parameters": {"requeue": True},  # whatever the cluster's default is
        # srun takes the cores from the job by itself in some versions only, and lets the others wait for one that has failed
        "slurm_srun_args": [f"--cpus-per-task={slurm.cpus}", "--kill-on-bad-exit=1"],
    }
    return {name: value for name, value in asked.items() if value not in (None, 0)}


def _ours(error: Exception) -> MedSSLError:
    """What ended a job, as the command says it."""
    if isinstance(error, MedSSLError):
        return error
    if isinstance(error, OSError):
        return refusal(error)
    return MedSSLError("the time is up once more than cluster.requeues allows; give more hours, and the same command with --resume true")


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide from a job what this process was told of its own place: in a run, or in the allocation that it was submitted from."""
    allocated = "SLURM_JOB_ID" in os.environ
    hidden = [name for name in os.environ if name in _PLACES or (allocated and name.startswith("SLURM_") and name != "SLURM_CONF")]
    kept = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(kept)


def _settle() -> None:
    """Make a command of this process: its log, its answer to signals, and which task of a job without SLURM it is."""
    ours = logging.getLogger("medssl")
    ours.addHandler(logging.StreamHandler())
    ours.setLevel(logging.INFO)
    os.register_at_fork(after_in_child=_leave_signal)
    tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS", "1"))
    if tasks > 1:
        local, job = os.environ["SUBMITIT_LOCAL_LOCALID"], int(os.environ["SUBMITIT_LOCAL_JOB_ID"])
        os.environ.update(LOCAL_RANK=local, NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port_of(job))


def _leave_signal() -> None:
    """What a forked process does: SLURM warns all processes of a task, and only the task itself may answer."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
