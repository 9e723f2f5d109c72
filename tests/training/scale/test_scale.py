"""Whole runs in processes of their own: several at once, killed, planned, on a cluster, made again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from medssl.data.unlabelled import Unlabelled
from medssl.errors import BundleError, ConfigError, ConflictError, HelperError
from medssl.training import ranks
from medssl.training.launch import launch, launch_finetune, launch_pretrain
from medssl.training.planning.cost import Plan
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.scale.cluster import Submitted

ENCODER = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4], "width": 16, "depth": 1, "heads": 2}}
ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = 1e-4
EXAMPLE = Plan(
    1,
    4,
    64,
    step_seconds=1,
    feed_seconds=1,
    watch_seconds=0,
    workers=0,
    memory_bytes=1,
    steps=4,
    checkpoint_bytes=1,
    epochs=1,
    unused=False,
)


def config(store: Path, method: str = "mae.MAE", *, name: str = "pretrain.yaml", **training: object) -> list[str]:
    """Arguments of a short pretraining."""
    settings = {
        "objective": {"class_path": f"medssl.objectives.{method}", "init_args": {"encoder": ENCODER}},
        "feed": {"crops": {"size": [16, 16]}, "batch_size": 4, "store": str(store)},
        "training": {"steps": 4, "checkpoint_steps": 2, "precision": "32-true", **training},
        "seed": 3,
    }
    path = store.parent / name
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


def finetune_config(store: Path, **training: object) -> list[str]:
    settings = {
        "network": {"class_path": "medssl.models.decoder.ViTSegmenter", "init_args": {"encoder": ENCODER}},
        "feed": {"crops": {"size": [16, 16]}, "batch_size": 4, "store": str(store)},
        "training": {"steps": 3, "checkpoint_steps": 2, "precision": "32-true", **training},
    }
    path = store.parent / "finetune.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


def largest_difference(first: Path, second: Path) -> float:
    one, two = (load_file(run / "bundle" / "weights.safetensors") for run in (first, second))
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.fixture(autouse=True)
def _children_import_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae.MAE", "simclr.SimCLR"])
def test_two_processes_pretrain_to_the_weights_of_one(tmp_path: Path, store: Path, method: str) -> None:
    threads = torch.get_num_threads()
    launch_pretrain([*config(store, method), "--out", str(tmp_path / "one")])
    launch_pretrain([*config(store, method, name="two.yaml", devices=2), "--out", str(tmp_path / "two")])
    assert largest_difference(tmp_path / "one", tmp_path / "two") < TOLERANCE
    assert {path.name for path in (tmp_path / "two" / "checkpoints").iterdir()} == {"last.ckpt", "before.ckpt"}
    assert "LOCAL_RANK" not in os.environ
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_two_processes_fine_tune_to_the_weights_and_one_set_of_thresholds(tmp_path: Path, store: Path) -> None:
    launch_finetune([*finetune_config(store), "--out", str(tmp_path / "one")])
    bundle = launch_finetune([*finetune_config(store, devices=2), "--out", str(tmp_path / "two")])
    assert largest_difference(tmp_path / "one", tmp_path / "two") < TOLERANCE
    assert bundle.operating_points["slice"]["chosen_on"] == "validation"


def test_an_error_in_one_process_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(4)"]
    monkeypatch.setattr(ranks, "_start", lambda *_: subprocess.Popen(failing))
    with pytest.raises(HelperError, match="process 1 of this run ended with exit code 4"), ranks.helped(["pretrain"], 2):
        pass
    assert "LOCAL_RANK" not in os.environ


def test_fsdp_without_a_gpu_is_refused_by_name(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="fsdp needs GPUs"):
        launch_pretrain([*config(store, strategy="fsdp"), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae.MAE", "simclr.SimCLR"])
def test_a_run_killed_at_random_moments_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, store: Path, method: str) -> None:
    arguments = config(store, method, steps=60, checkpoint_steps=1)
    whole = launch_pretrain([*arguments, "--out", str(tmp_path / "whole")])
    out, moments = tmp_path / "killed", random.Random(5)
    for _ in range(3):
        resume = str((out / "config.yaml").is_file()).lower()
        kill_after([*arguments, "--out", str(out), "--resume", resume], out, steps=moments.randint(1, 12), seconds=moments.uniform(0, 0.1))
    assert not (out / "bundle").exists()
    resumed = launch_pretrain([*arguments, "--out", str(out), "--resume", "true"])
    assert resumed.weights_id == whole.weights_id


def kill_after(arguments: list[str], out: Path, *, steps: int, seconds: float) -> None:
    """Start a run, wait until it has made so many steps, and then so many seconds; then SIGKILL."""
    before = steps_of(out)
    process = subprocess.Popen([sys.executable, "-m", "medssl", "pretrain", *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None and steps_of(out) < before + steps:
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def steps_of(out: Path) -> int:
    """Looks at health so far, one a checkpoint."""
    path = out / "health.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_run_in_parts_draws_and_saves_once_a_step_and_resumes_at_a_step(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = config(store, accumulate=2)
    whole = launch_pretrain([*arguments, "--out", str(tmp_path / "whole")])
    step = Pretrainer.training_step

    def stop(module: Pretrainer, batch: Unlabelled, batch_idx: int) -> Tensor:
        if batch_idx == 5:  # the second part of the third step
            raise InterruptedError
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "training_step", stop)
        patch.setattr("medssl.training.run.estimate", lambda *_, **__: EXAMPLE)
        with pytest.raises(InterruptedError):
            launch_pretrain([*arguments, "--out", str(tmp_path / "cut")])
    resumed = launch_pretrain([*arguments, "--out", str(tmp_path / "cut"), "--resume", "true"])
    assert resumed.weights_id == whole.weights_id
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "health.jsonl").read_text().splitlines()]
    assert steps == [0, 2, 4]


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_that_was_killed_behind_its_last_step_writes_its_bundle(tmp_path: Path, store: Path, steps: int) -> None:
    arguments = [*config(store, steps=steps), "--out", str(tmp_path / "run")]
    whole = launch_pretrain(arguments)
    (tmp_path / "run" / "bundle").rename(tmp_path / "gone")
    assert launch_pretrain([*arguments, "--resume", "true"]).weights_id == whole.weights_id


def test_a_plan_is_made_of_measured_steps_and_leaves_nothing(tmp_path: Path, store: Path) -> None:
    plan = launch("pretrain", [*config(store), "--out", str(tmp_path / "run"), "--plan", "true"])
    assert isinstance(plan, Plan)
    assert not (tmp_path / "run").exists()
    assert (plan.crops, plan.tokens, plan.steps, plan.epochs) == (4, 64, 4, 8)
    assert plan.step_seconds > 0
    assert plan.seconds >= plan.steps * plan.step_seconds


def test_fine_tuning_can_be_planned_too(tmp_path: Path, store: Path) -> None:
    plan = launch("finetune", [*finetune_config(store), "--out", str(tmp_path / "run"), "--plan", "true"])
    assert isinstance(plan, Plan)
    assert not (tmp_path / "run").exists()


def test_a_bundle_is_made_again_from_its_own_description(tmp_path: Path, store: Path) -> None:
    first = launch_pretrain([*config(store), "--out", str(tmp_path / "first")])
    source = ["--from-bundle", str(tmp_path / "first" / "bundle"), "--feed.store", str(store)]
    again = launch_pretrain([*source, "--out", str(tmp_path / "again")])
    assert again.weights_id == first.weights_id
    assert str(tmp_path) not in (tmp_path / "first" / "bundle" / "bundle.json").read_text()


def test_other_threads_than_a_bundle_was_made_with_are_named(tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    launch_pretrain([*config(store), "--out", str(tmp_path / "first")])
    described = tmp_path / "first" / "bundle" / "bundle.json"
    fields = json.loads(described.read_text())
    fields["training"]["threads"] += 1
    described.write_text(json.dumps(fields))
    launch_pretrain(["--from-bundle", str(described.parent), "--feed.store", str(store), "--out", str(tmp_path / "again")])
    assert "equal to rounding only" in caplog.text


def test_a_lesion_network_is_made_again_from_the_encoder_that_it_started_from_and_no_other(tmp_path: Path, store: Path) -> None:
    launch_pretrain([*config(store), "--out", str(tmp_path / "encoder")])
    start = ["--bundle", str(tmp_path / "encoder" / "bundle")]
    first = launch_finetune([*finetune_config(store), *start, "--out", str(tmp_path / "first")])
    source = ["--from-bundle", str(tmp_path / "first" / "bundle"), "--feed.store", str(store)]
    with pytest.raises(ConflictError, match="give the right one with --bundle"):
        launch_finetune([*source, "--out", str(tmp_path / "wrong")])
    assert launch_finetune([*source, *start, "--out", str(tmp_path / "again")]).weights_id == first.weights_id


def test_a_store_of_other_scans_is_refused_by_its_hash(tmp_path: Path, store: Path) -> None:
    launch_pretrain([*config(store), "--out", str(tmp_path / "first")])
    manifest = store / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("p1", "q1"))
    with pytest.raises(ConflictError, match="manifest hash"):
        launch_pretrain(["--from-bundle", str(tmp_path / "first" / "bundle"), "--feed.store", str(store), "--out", str(tmp_path / "b")])


def test_a_bundle_that_names_foreign_code_runs_none_of_it(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch_pretrain([*config(store), "--out", str(tmp_path / "first")])
    described = tmp_path / "first" / "bundle" / "bundle.json"
    fields = json.loads(described.read_text())
    (tmp_path / "stranger.py").write_text("class Zen: ...")
    (tmp_path / "stranger.yaml").write_text("class_path: stranger.Zen")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for objective in ({"class_path": "stranger.Zen"}, "stranger.Zen", "stranger.yaml"):
        fields["training"]["config"]["objective"] = objective
        described.write_text(json.dumps(fields))
        with pytest.raises(BundleError, match="stranger.* is not of this medssl"):
            launch_pretrain(["--from-bundle", str(described.parent), "--feed.store", str(store), "--out", str(tmp_path / "b")])
        assert "stranger" not in sys.modules


@pytest.mark.slow
def test_a_job_of_a_cluster_leaves_the_bundle_of_a_run_here(tmp_path: Path, store: Path) -> None:
    pytest.importorskip("submitit")
    here = launch_pretrain([*config(store), "--out", str(tmp_path / "here")])
    cluster = ["--cluster.executor", "local", "--cluster.logs", str(tmp_path / "logs"), "--cluster.gpus", "0"]
    job = launch("pretrain", [*config(store), *cluster, "--out", str(tmp_path / "there")])
    assert isinstance(job, Submitted)
    assert job.job.result() != ""
    assert largest_difference(tmp_path / "here", tmp_path / "there") == 0
    assert list(job.logs.glob("*.out"))
    assert (tmp_path / "here" / "config.yaml").read_text() == (tmp_path / "there" / "config.yaml").read_text()
    assert here.weights_id in (tmp_path / "there" / "bundle" / "bundle.json").read_text()
