"""The processes of one run: which of them leads, and how the others are started and ended.

The leading process alone makes the run folder, writes and talks. Processes are started here, by torchrun or by srun; several nodes without
them run the same command each, with NODE_RANK, MASTER_ADDR and MASTER_PORT in their environment.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed

from medssl.errors import ConfigError, HelperError

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0  # after one process has failed, for the leading one to notice by itself


def leads() -> bool:
    """Whether this process is the first of its run; true where it is the only one."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def started_elsewhere() -> bool:
    """Whether somebody else starts the processes of this run: a run that this one helps, torchrun, or srun."""
    return "LOCAL_RANK" in os.environ or TorchElasticEnvironment.detect()


def environment() -> ClusterEnvironment:
    """Where Lightning reads of the other processes; what it takes from SLURM by itself holds for no batch script and no shell."""
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def join_step(devices: int, num_nodes: int) -> None:
    """Take the place among the processes that srun has started together, in the words that torch and Lightning read.

    A batch script and a shell are steps of one process: a run there starts the others of its node by itself.

    Args:
        devices: Processes of each node that the training asks for.
        num_nodes: Nodes that it asks for.

    Raises:
        ConfigError: srun has started others.
    """
    step = {name: os.environ.get(f"SLURM_STEP_{name}", "1") for name in ("NUM_TASKS", "NUM_NODES", "ID")}
    tasks, nodes = int(step["NUM_TASKS"]), int(step["NUM_NODES"])
    if tasks == 1 or TorchElasticEnvironment.detect():
        return
    if (tasks, nodes) != (devices * num_nodes, num_nodes):
        raise ConfigError(
            f"srun has started {tasks} processes on {nodes} nodes, and training.devices is {devices}, training.num_nodes {num_nodes}: give "
            "srun --nodes the one and --ntasks-per-node the other, or start one process, which starts the others of its node"
        )
    os.environ.update(LOCAL_RANK=os.environ["SLURM_LOCALID"], NODE_RANK=os.environ["SLURM_NODEID"])
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"]))
    os.environ.setdefault("MASTER_PORT", port_of(int(os.environ["SLURM_JOB_ID"]) + int(step["ID"])))


def port_of(job: int) -> str:
    """The port of a job: the same in all its processes, and below those that systems hand out by themselves."""
    return str(12000 + job % 20000)


def own_device() -> torch.device:
    """Where this process trains, and where networks look at scans before and after it: each process of a node has a GPU of its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def check_nodes(num_nodes: int) -> None:
    """Whether this machine knows which of several it is and where the first one listens; without that all of them wait for ever.

    Args:
        num_nodes: Machines that train together.

    Raises:
        ConfigError: It does not, and neither srun nor torchrun has started this process.
    """
    if num_nodes == 1 or TorchElasticEnvironment.detect():
        return
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"num_nodes is {num_nodes} and the environment lacks {', '.join(missing)}: set NODE_RANK (0, 1, ...) and the first machine's "
            "MASTER_ADDR and MASTER_PORT on each, or start it through torchrun or srun"
        )


@contextmanager
def helped(command: Sequence[str], devices: int) -> Iterator[None]:
    """Start the other processes of this node and end with them: all of them succeed or none.

    Args:
        command: Arguments of `medssl` that start the same run again; empty leaves starting to Lightning, which repeats the script.
        devices: Processes of this node, this one included.

    Raises:
        HelperError: One of them failed.
    """
    if devices == 1 or not command or started_elsewhere():
        yield
        return
    before, threads = dict(os.environ), torch.get_num_threads()
    os.environ.update({"LOCAL_RANK": "0", "MASTER_ADDR": before.get("MASTER_ADDR", "127.0.0.1"), "MASTER_PORT": _port(before)})
    helpers = [_start(command, rank) for rank in range(1, devices)]
    ended = threading.Event()
    threading.Thread(target=_watch, args=(helpers, ended), daemon=True).start()
    try:
        yield
    except (RuntimeError, SystemExit) as error:
        _raise_failed(helpers, error)
        raise
    else:
        _raise_failed(helpers, None, patience=None)
    finally:
        ended.set()
        _end(helpers)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)
        torch.set_num_threads(threads)  # which Lightning has shared out among the processes


def _start(command: Sequence[str], rank: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "LOCAL_RANK": str(rank)}
    return subprocess.Popen([sys.executable, "-m", "medssl", *command], env=environment, stdout=subprocess.DEVNULL)


def _port(environment: dict[str, str]) -> str:
    """The port given, or a free one."""
    if "MASTER_PORT" in environment:
        return environment["MASTER_PORT"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _watch(helpers: list[subprocess.Popen[bytes]], ended: threading.Event) -> None:
    """End this process where a helper has failed and this one waits for it for ever."""
    while not ended.wait(0.5):
        if any(helper.poll() for helper in helpers):
            if not ended.wait(_GRACE_SECONDS):
                logger.error("a process of this run has failed; its message is above")
                _end(helpers)
                os.kill(os.getpid(), signal.SIGTERM)
            return


def _raise_failed(helpers: list[subprocess.Popen[bytes]], cause: BaseException | None, *, patience: float | None = _GRACE_SECONDS) -> None:
    """Name the first helper that failed by itself, once all have ended or patience has."""
    for rank, helper in enumerate(helpers, start=1):
        try:
            code = helper.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if code:
            raise HelperError(f"process {rank} of this run ended with exit code {code}; its message is above") from cause


def _end(helpers: list[subprocess.Popen[bytes]]) -> None:
    for helper in helpers:
        if helper.poll() is None:
            helper.kill()
        helper.wait()
