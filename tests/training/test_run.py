"""What a run records, and how it ends."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.data.unlabelled import Unlabelled
from medssl.errors import DivergenceError
from medssl.training.launch import launch_pretrain
from medssl.training.planning.cost import Plan
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.run import Run
from tests.training.scale.test_scale import EXAMPLE, config


def test_the_recipe_in_a_bundle_names_no_folder_of_the_machine() -> None:
    config = """
feed: {store: /data/store, batch_size: 2}
bundle: /data/bundle
objective: {init_args: {encoder: {init_args: {path: /home/me/mae.pth, patch: [4, 4], kind: mae}}}}
"""
    recipe = Run(Path("run"), config).recipe
    assert recipe == {
        "feed": {"batch_size": 2},
        "objective": {"init_args": {"encoder": {"init_args": {"path": "mae.pth", "patch": [4, 4], "kind": "mae"}}}},
    }


def from_step(monkeypatch: pytest.MonkeyPatch, number: int, then: Callable[[Tensor], Tensor]) -> None:
    """Let something happen to the loss of every step from this one on, counted from 0."""
    step = Pretrainer.training_step

    def changed(module: Pretrainer, batch: Unlabelled, batch_idx: int) -> Tensor:
        loss = step(module, batch, batch_idx)
        return loss if module.global_step < number else then(loss)

    monkeypatch.setattr(Pretrainer, "training_step", changed)
    monkeypatch.setattr("medssl.training.run.estimate", lambda *_, **__: EXAMPLE)


def test_a_loss_that_is_no_number_ends_the_run_with_the_checkpoint_before(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_step(monkeypatch, 2, lambda loss: loss * float("nan"))
    with pytest.raises(DivergenceError, match="the loss is not finite at step 4: training has diverged; lower training.learning_rate"):
        launch_pretrain([*config(store), "--out", str(tmp_path / "run")])
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    assert json.loads((tmp_path / "run" / "health.json").read_text())["reason"] == "features are not finite"


def infinite_gradient(loss: Tensor) -> Tensor:
    """The same finite loss, whose gradient is not finite."""
    loss.register_hook(lambda gradient: gradient * float("inf"))
    return loss


@pytest.mark.parametrize("steps", [4, 6])
def test_weights_that_are_no_numbers_are_neither_a_bundle_nor_a_checkpoint(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    arguments = [*config(store, steps=steps), "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        from_step(patch, 3, infinite_gradient)
        with pytest.raises(DivergenceError, match="the weights are not finite at step 4"):
            launch_pretrain(arguments)
    assert not (tmp_path / "run" / "bundle").exists()
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert launch_pretrain([*arguments, "--resume", "true"]).training["steps"] == steps


def test_ctrl_c_stays_one_and_keeps_the_checkpoint_before(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    from_step(monkeypatch, 2, stop)
    with pytest.raises(KeyboardInterrupt):
        launch_pretrain([*config(store), "--out", str(tmp_path / "run")])
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of the log, but for speed."""
    with (run / "logs" / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)]


def test_a_resumed_run_has_the_log_of_an_uninterrupted_one(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = config(store, steps=6)
    launch_pretrain([*arguments, "--out", str(tmp_path / "whole")])

    def stop(loss: Tensor) -> Tensor:
        raise InterruptedError(f"loss {float(loss.detach())}")

    with monkeypatch.context() as patch:
        from_step(patch, 5, stop)
        with pytest.raises(InterruptedError):
            launch_pretrain([*arguments, "--out", str(tmp_path / "cut")])
    launch_pretrain([*arguments, "--out", str(tmp_path / "cut"), "--resume", "true"])
    assert len(logged(tmp_path / "whole")) > 3
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


def test_a_gpu_is_told_to_add_in_one_order_before_the_first_trial_step(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    told = list[str | None]()

    def noted(*_: object, **__: object) -> Plan:
        told.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return EXAMPLE

    monkeypatch.setattr("medssl.training.run.estimate", noted)
    launch_pretrain([*config(store), "--out", str(tmp_path / "run")])
    assert told == [":4096:8"]
