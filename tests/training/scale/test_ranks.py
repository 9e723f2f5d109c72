"""Which process does what, and where."""

import pytest
import torch

from medssl.training.scale.ranks import own_device


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_each_process_of_a_node_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(name, "3")
    assert own_device() == torch.device("cuda:3")


def test_without_a_gpu_a_process_has_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device() == torch.device("cpu")
