"""Which weights a run keeps."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from medssl.data.dataset import Case, load_cases
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.outputs import Outputs
from medssl.training.finetuning.lesions import LesionModule
from medssl.training.launch import launch_finetune
from medssl.training.validation import selection
from medssl.training.validation.points import Metric, measure, score_cases
from medssl.training.validation.selection import Look, Selection, Selector

KEEP = ["--selection.metric", "dice", "--selection.every_steps", "1", "--selection.average", "0.9"]


def cases(store: Path) -> list[Case]:
    read = Store(store)
    return load_cases(read, read.manifest.split("val"))


def network(task: str, *, dims: int = 2, bags: bool = False) -> Network:
    return cast(Network, SimpleNamespace(task=task, spatial_dims=dims, bags=bags, outputs=Outputs()))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "bundle" / "weights.safetensors")


def test_the_best_weights_are_those_of_the_best_look(tmp_path: Path, scratch: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.2, 0.7, 0.7, 0.1])
    seen = []

    def value(*told: Any) -> float:
        state: dict[str, torch.Tensor] = told[2]
        seen.append({name.removeprefix("network."): tensor.clone() for name, tensor in state.items()})
        return next(values)

    monkeypatch.setattr(Selector, "_value", value)
    bundle = launch_finetune([*scratch, *KEEP[:4], "--out", str(tmp_path / "run")])
    found = bundle.training["selection"]
    assert isinstance(found, dict)
    assert (found["step"], found["value"]) == (2, 0.7)
    assert all(seen[1][name].equal(tensor) for name, tensor in weights(tmp_path / "run").items())


def test_a_killed_and_resumed_run_keeps_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, scratch: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = launch_finetune([*scratch, *KEEP, "--out", str(tmp_path / "whole")])
    arguments, step = [*scratch, *KEEP, "--out", str(tmp_path / "cut")], LesionModule.training_step

    def stop(module: LesionModule, batch: object, batch_idx: int) -> torch.Tensor:
        if module.global_step == 3:
            raise InterruptedError
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LesionModule, "training_step", stop)
        with pytest.raises(InterruptedError):
            launch_finetune(arguments)
    resumed = launch_finetune([*arguments, "--resume", "true"])
    assert resumed.weights_id == whole.weights_id
    assert resumed.training["selection"] == whole.training["selection"]


def test_training_ends_when_nothing_better_has_come_for_so_many_looks(
    tmp_path: Path, scratch: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Selector, "_value", lambda *_: 0.5)
    arguments = [*scratch, *KEEP[:4], "--selection.patience", "1", "--out", str(tmp_path / "run")]
    found = launch_finetune(arguments).training["selection"]
    assert isinstance(found, dict)
    assert [look["step"] for look in found["looks"]] == [1, 2]
    again = launch_finetune([*arguments, "--resume", "true"]).training["selection"]
    assert again == found


def test_averaged_weights_are_the_decayed_sum_of_the_weights_of_all_steps(
    tmp_path: Path, scratch: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states, step = [], LesionModule.training_step

    def noted(module: LesionModule, batch: object, batch_idx: int) -> torch.Tensor:
        states.append({name: tensor.clone() for name, tensor in module.network.state_dict().items()})
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(LesionModule, "training_step", noted)
    launch_finetune([*scratch, "--out", str(tmp_path / "last")])
    steps = [*states[-4:], weights(tmp_path / "last")]  # before the first step and behind each of four
    expected = {name: tensor.double() for name, tensor in steps[0].items()}
    for number, state in enumerate(steps[1:], start=1):
        decay = (1 + number) / (10 + number)
        expected = {name: decay * mean + (1 - decay) * state[name].double() for name, mean in expected.items()}
    launch_finetune([*scratch, *KEEP[4:], "--out", str(tmp_path / "mean")])
    for name, tensor in weights(tmp_path / "mean").items():
        torch.testing.assert_close(tensor, expected[name].float(), atol=1e-5, rtol=1e-4)


def test_looking_changes_nothing_in_training(tmp_path: Path, scratch: list[str]) -> None:
    launch_finetune([*scratch, "--out", str(tmp_path / "plain")])
    launch_finetune([*scratch, *KEEP[:4], "--out", str(tmp_path / "looked")])
    states = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in ("plain", "looked")]
    assert all(states[0][name].equal(tensor) for name, tensor in states[1].items())


def test_adapters_are_looked_at_as_the_network_that_is_written(tmp_path: Path, scratch: list[str]) -> None:
    encoder = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4], "width": 16, "depth": 1, "heads": 2}}
    network = {"class_path": "medssl.models.decoder.ViTSegmenter", "init_args": {"encoder": encoder}}
    arguments = [*scratch, "--network", json.dumps(network), "--protocol", "lora", *KEEP[:2], "--selection.every_steps", "4"]
    bundle = launch_finetune([*arguments, "--out", str(tmp_path / "run")])
    found = bundle.training["selection"]
    assert isinstance(found, dict)
    looked_at = cases(tmp_path / "store")
    network_of_bundle = bundle.load(tmp_path / "run" / "bundle")
    assert measure(score_cases(network_of_bundle, looked_at, bundle.window, "dice"), "dice") == found["value"]  # type: ignore[arg-type]


def test_mirror_axes_are_part_of_the_bundle(tmp_path: Path, scratch: list[str]) -> None:
    bundle = launch_finetune([*scratch, "--selection.mirror", "[0, 1]", "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").window.flips == bundle.window.flips == (0, 1)


def test_of_equally_good_looks_the_first_is_the_best_and_a_low_loss_is_good() -> None:
    selector = Selector(Selection(metric="loss"), [], None, None)  # type: ignore[arg-type]
    selector.looks = [Look(1, 0.5), Look(2, 0.3), Look(3, 0.3)]
    assert selector.best == Look(2, 0.3)


def test_scans_with_and_without_lesion_are_looked_at_in_turn(store: Path) -> None:
    ill, well = cases(store)
    chosen = Selection(metric="scan_auroc", scans=2).looked_at([ill, ill, ill, well], network("segmentation"), seed=0)
    assert sorted(len(case.lesion_slices) > 0 for case in chosen) == [False, True]


def test_a_metric_that_validation_scans_cannot_tell_is_refused_before_training(tmp_path: Path, scratch: list[str]) -> None:
    with pytest.raises(ConfigError, match="scan_auroc cannot be measured on 1 validation scans"):
        launch_finetune([*scratch, "--selection.metric", "scan_auroc", "--selection.scans", "1", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metric", "asked"),
    [
        ("dice", network("classification")),
        ("dice", network("detection")),
        ("slice_auroc", network("classification", bags=True)),
        ("slice_auroc", network("classification", dims=3)),
    ],
)
def test_a_metric_that_a_network_cannot_have_is_refused(store: Path, metric: Metric, asked: Network) -> None:
    with pytest.raises(ConfigError, match=f"{metric} cannot be measured on 2 validation scans with this network"):
        Selection(metric=metric).looked_at(cases(store), asked, seed=0)


@pytest.mark.parametrize(
    ("metric", "asked"),
    [
        ("dice", network("segmentation", dims=3)),
        ("slice_auroc", network("detection")),
        ("slice_auroc", network("classification")),
        ("scan_auroc", network("classification", bags=True)),
        ("loss", network("classification", dims=3)),
    ],
)
def test_a_metric_that_a_network_has_is_looked_at(store: Path, metric: Metric, asked: Network) -> None:
    assert len(Selection(metric=metric).looked_at(cases(store), asked, seed=0)) == 2


def test_lesions_that_are_not_positive_make_no_positive_scan(store: Path) -> None:
    benign = [replace(case, label=0) for case in cases(store)]
    with pytest.raises(ConfigError, match="it needs scans with and without lesion"):
        Selection(metric="scan_auroc").looked_at(benign, network("segmentation"), seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every_steps": 0}, "every_steps"),
        ({"average": 1.0}, "selection.average"),
        ({"patience": 2}, "needs selection.metric"),
        ({"share": 0.0}, "selection.share"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selection(**wrong)  # type: ignore[arg-type]


def test_all_looks_at_validation_scans_are_timed_on_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [cast(Case, SimpleNamespace(shape=(1, 4, 4, depth))) for depth in (6, 2)]
    selector = Selector(Selection(metric="dice", every_steps=4), scans, Window((4, 4)), None)
    asked = []
    monkeypatch.setattr(selection, "score_cases", lambda _, chosen, *__: asked.extend(chosen))
    monkeypatch.setattr(selection.time, "perf_counter", itertools.count().__next__)
    assert selector.watch_seconds(cast(L.LightningModule, SimpleNamespace(network=None)), steps=10, done=4) == 2 * 4
    assert asked == scans[1:]
