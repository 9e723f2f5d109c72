"""Which process does what, and where, and what it must know of the others before it waits for them."""

import os

import pytest
import torch

from medssl.errors import ConfigError
from medssl.training.ranks import join_step, leads, own_device, started_elsewhere
from medssl.training.settings import Training

KNOWN = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "2"}
STEP = {
    **BATCH_SCRIPT,
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NAME": "interactive",  # as salloc calls it
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # which joining changes
    for name in (*KNOWN, *STEP, "RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_each_process_of_a_node_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device() == torch.device("cuda:3")


def test_without_a_gpu_a_process_has_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device() == torch.device("cpu")


def test_several_machines_that_were_not_told_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node0")
    with pytest.raises(ConfigError, match="num_nodes is 2 and the environment lacks NODE_RANK, MASTER_PORT"):
        Training(num_nodes=2).check_machine()


def test_one_machine_needs_to_know_of_none() -> None:
    Training(devices=2).check_machine()


@pytest.mark.parametrize("told", [KNOWN, ("TORCHELASTIC_RUN_ID",)])  # by hand, by torchrun
def test_several_machines_that_know_each_other_may_train(monkeypatch: pytest.MonkeyPatch, told: tuple[str, ...]) -> None:
    for name in told:
        monkeypatch.setenv(name, "1")
    Training(num_nodes=2).check_machine()


def test_a_process_of_srun_knows_its_place_the_first_node_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    join_step(devices=2, num_nodes=2)
    Training(devices=2, num_nodes=2).check_machine()
    assert [os.environ[name] for name in ("LOCAL_RANK", *KNOWN)] == ["1", "1", "gpu07", "12008"]
    assert started_elsewhere()
    assert not leads()


def test_the_first_process_of_srun_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**STEP, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(name, value)
    join_step(devices=2, num_nodes=2)
    assert leads()


def test_other_processes_of_srun_than_the_training_asks_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"4 processes on 2 nodes, and training.devices is 1, training.num_nodes 2"):
        join_step(devices=1, num_nodes=2)


def test_a_batch_script_without_srun_starts_its_own_helpers_of_which_none_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BATCH_SCRIPT.items():
        monkeypatch.setenv(name, value)
    join_step(devices=2, num_nodes=1)
    assert not started_elsewhere()
    assert leads()
    monkeypatch.setenv("LOCAL_RANK", "1")  # what a helper is given
    assert not leads()
