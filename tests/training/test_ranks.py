"""Which process does what, and where, and what it must know of the others before it waits for them."""

import pytest
import torch

from medssl.errors import ConfigError
from medssl.training.ranks import own_device
from medssl.training.settings import Training

KNOWN = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KNOWN, "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_LOCALID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_each_process_of_a_node_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(name, "3")
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


@pytest.mark.parametrize("told", [KNOWN, ("TORCHELASTIC_RUN_ID",), ("SLURM_NTASKS",)])  # by hand, by torchrun, by SLURM
def test_several_machines_that_know_each_other_may_train(monkeypatch: pytest.MonkeyPatch, told: tuple[str, ...]) -> None:
    for name in told:
        monkeypatch.setenv(name, "1")
    Training(num_nodes=2).check_machine()
