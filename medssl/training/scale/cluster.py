"""The same run on a SLURM cluster, through submitit (Facebook AI Research, MIT licence).

submitit pickles the call (a few strings and a function of medssl) into the job's own log folder and reads it back in the job; no file of a
user is read so.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medssl.errors import ConfigError, MissingDependencyError
from medssl.models.bundle import Bundle
from medssl.training.ranks import started_elsewhere
from medssl.training.settings import Training


@dataclass(frozen=True)
class Slurm:
    """What a job asks for; nodes and tasks a node are `training.num_nodes` and `training.devices`.

    Args:
        partition: Queue.
        hours: Longest time; a job that is cut off is put back into the queue and goes on from its checkpoint.
        memory_gb: Of each node.
        cpus: Cores of each task.
        gpus: GPUs of each task.
        account: Who pays.
        constraint: Kind of node, in SLURM's words.
        logs: Folder of job scripts and logs.
        requeues: How often a job that was cut off goes on.
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
    constraint: str | None = None
    logs: str = "slurm-logs"
    requeues: int = 10
    executor: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.hours <= 0 or min(self.memory_gb, self.cpus) < 1 or min(self.gpus, self.requeues) < 0:
            raise ConfigError(
                f"hours must be > 0, memory_gb and cpus >= 1, gpus and requeues >= 0, "
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
    """

    command: str
    arguments: tuple[str, ...]
    out: str
    launch: Callable[[str, list[str]], object]

    def __call__(self) -> str:
        """Run; returns the model id of the bundle, or nothing in a process that helps."""
        if not started_elsewhere():
            _join()
        resume = (Path(self.out) / "config.yaml").is_file()
        ended = self.launch(self.command, [*self.arguments, "--cluster", "null", "--resume", str(resume).lower()])
        return ended.model_id if isinstance(ended, Bundle) else ""

    def checkpoint(self) -> Any:  # noqa: ANN401
        """What submitit puts back into the queue when the job is cut off."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(job: Job, slurm: Slurm, training: Training) -> Submitted:
    """Put a job into the queue.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigError: No SLURM here.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError("cluster needs submitit; install it with: pip install 'medssl[cluster]'") from error
    if slurm.executor == "slurm" and submitit.SlurmExecutor.affinity() < 0:
        raise ConfigError("cluster asks for SLURM and there is no srun here; run this on its login node, or set cluster to null")
    kind = {"slurm": submitit.SlurmExecutor, "local": submitit.LocalExecutor}[slurm.executor]
    executor = submitit.AutoExecutor(folder=Path(slurm.logs) / "%j", cluster=kind.name(), slurm_max_num_timeout=slurm.requeues)
    executor.update_parameters(**_parameters(slurm, training))
    queued = executor.submit(job)
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
        "timeout_min": round(slurm.hours * 60),
        **{f"slurm_{name}": asdict(slurm)[name] for name in ("partition", "account", "constraint")},
    }
    return {name: value for name, value in asked.items() if value not in (None, 0)}


def _join() -> None:
    """Tell Lightning which task of a job without SLURM this process is."""
    import submitit

    task = submitit.JobEnvironment()
    if task.num_tasks > 1:
        port = 20000 + int(task.job_id) % 20000  # the same in all tasks of a job
        os.environ.update(
            LOCAL_RANK=str(task.local_rank), NODE_RANK=str(task.node), MASTER_ADDR=socket.gethostname(), MASTER_PORT=str(port)
        )
