from pathlib import Path

import pytest

from medssl.errors import ConfigError
from medssl.training.launch import launch
from medssl.training.scale import cluster
from medssl.training.scale.cluster import Job, Slurm, submit
from medssl.training.settings import Training


def test_a_job_that_is_put_back_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(cluster, "started_elsewhere", lambda: True)
    job = Job("pretrain", ("--seed", "1"), str(tmp_path), lambda name, args: seen.append([name, *args]))
    job()
    (tmp_path / "config.yaml").touch()
    job()
    assert [call[-1] for call in seen] == ["false", "true"]


def test_a_job_that_is_cut_off_puts_itself_back() -> None:
    pytest.importorskip("submitit")
    job = Job("pretrain", ("--seed", "1"), "run", launch)
    assert job.checkpoint().function == job


def test_a_request_says_nodes_and_tasks_of_the_training_and_leaves_out_what_is_not_given() -> None:
    asked = cluster._parameters(Slurm(partition="gpu", hours=1.5), Training(devices=4, num_nodes=2))
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"], asked["timeout_min"]) == (2, 4, 4, 90)
    assert asked["slurm_partition"] == "gpu"
    assert "slurm_account" not in asked


def test_slurm_where_there_is_none_is_refused() -> None:
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match="no srun here"):
        submit(Job("pretrain", (), "run", launch), Slurm(), Training())


def test_a_request_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="hours"):
        Slurm(hours=0)
