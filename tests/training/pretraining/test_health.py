import itertools
import json
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from medssl.data.dataset import Crops, load_cases
from medssl.data.store import Store
from medssl.errors import CollapseError
from medssl.models.vit import ViT
from medssl.objectives.simclr import SimCLR
from medssl.training.pretraining import health as measured
from medssl.training.pretraining.health import Asked, Health, Watch, collapsed, embed
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.settings import Precision, Training

START = {"std_mean": 0.2, "effective_rank": 4.0}


def encoder() -> ViT:
    torch.manual_seed(0)
    return ViT((4, 4), width=16, depth=1, heads=2)


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 3, count).view(-1, 1, 1, 1)


def test_the_alarm_is_silent_for_features_as_good_as_at_the_start() -> None:
    assert collapsed(START, {"std_mean": 0.15, "effective_rank": 3.0}, Watch()) is None


@pytest.mark.parametrize("now", [{"std_mean": 0.01, "effective_rank": 4.0}, {"std_mean": 0.2, "effective_rank": 0.5}])
def test_the_alarm_names_what_has_fallen(now: dict[str, float]) -> None:
    fallen = min(now, key=lambda name: now[name] / START[name])
    assert fallen in str(collapsed(START, now, Watch()))


def test_constant_features_raise_the_alarm_even_when_they_were_constant_at_the_start() -> None:
    nothing = {"std_mean": 0.0, "effective_rank": 0.0}
    assert collapsed(nothing, nothing, Watch()) is not None


def test_embedding_leaves_the_mode_of_the_encoder_and_the_random_state_alone() -> None:
    model, state = encoder().train(), torch.get_rng_state()
    embed(model, images())
    assert model.training
    assert torch.get_rng_state().equal(state)


def watched(tmp_path: Path, *, on_collapse: str, becomes: float | None) -> Health:
    """A run of two steps, after which all weights of the encoder become one number where asked."""
    health = Health(
        images(),
        asked(),
        tmp_path,
        every=1,
        crops_a_step=4,
        watch=Watch(on_collapse=on_collapse),
        seed=0,  # type: ignore[arg-type]
    )
    module = Pretrainer(SimCLR(encoder()), Training(), seed=0)
    trainer = L.Trainer(max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    health.on_train_start(trainer, module)
    if becomes is not None:
        for parameter in module.objective.encoder.parameters():
            torch.nn.init.constant_(parameter, becomes)
    health.on_train_batch_end(trainer, module, None, None, 0)
    health.on_train_end(trainer, module)
    return health


def asked() -> Asked:
    return Asked(images(), np.array([0, 1] * 4), ("a", "a", "b", "b", "c", "c", "d", "d"))


def test_a_healthy_encoder_raises_no_alarm_and_leaves_a_picture(tmp_path: Path) -> None:
    health = watched(tmp_path, on_collapse="stop", becomes=None)
    assert json.loads((tmp_path / "health.json").read_text())["collapsed"] is False
    assert (tmp_path / "health.png").stat().st_size > 1000
    assert {"effective_rank", "std_min", "alignment", "uniformity", "knn_auroc", "probe_accuracy"} <= set(health.rows[-1])


def test_an_encoder_that_collapses_is_flagged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched(tmp_path, on_collapse="warn", becomes=0.0)
    assert json.loads((tmp_path / "health.json").read_text())["collapsed"] is True
    assert "collapse at step" in caplog.text


def test_an_encoder_that_collapses_stops_the_run_where_asked(tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match="collapsed"):
        watched(tmp_path, on_collapse="stop", becomes=0.0)


def test_features_that_are_no_numbers_raise_the_alarm_and_leave_a_picture(tmp_path: Path) -> None:
    watched(tmp_path, on_collapse="warn", becomes=float("nan"))
    state = json.loads((tmp_path / "health.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert state["reason"] == "features are not finite"
    assert (tmp_path / "health.png").is_file()


def test_features_that_were_no_numbers_at_the_start_are_judged_by_the_floor() -> None:
    assert collapsed({}, {"std_mean": 0.0, "effective_rank": 4.0}, Watch()) is not None
    assert collapsed({}, {"std_mean": 0.2, "effective_rank": 4.0}, Watch()) is None


def test_labelled_crops_are_of_scans_in_random_order(store: Path) -> None:
    cases = sorted(load_cases(Store(store), Store(store).manifest.rows), key=lambda case: -len(case.lesion_slices))
    ill, well = cases[0], cases[-1]
    sorted_by_class = [replace(one, row=replace(one.row, patient=f"{n}")) for n, one in enumerate([ill] * 40 + [well] * 40)]
    found = Asked.of(sorted_by_class, Crops((8, 8)), count=20, seed=0)
    assert found is not None
    assert set(found.labels.tolist()) == {0, 1}


def test_all_looks_are_timed_on_a_few_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(images(16), asked(), tmp_path, every=4, crops_a_step=4, watch=Watch(), seed=0)
    module = Pretrainer(SimCLR(encoder()), Training(), seed=0)
    monkeypatch.setattr(measured.time, "perf_counter", itertools.count().__next__)  # 8 crops take a second, a look sees 16 x 3 + 8
    assert health.watch_seconds(module, steps=10, done=0) == 4 * 7
    assert health.watch_seconds(module, steps=10, done=4) == 2 * 7


@pytest.mark.parametrize(("precision", "kind"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_features_are_computed_in_the_precision_of_the_run(precision: Precision, kind: torch.dtype) -> None:
    model, kinds = encoder(), set()
    model.embed.register_forward_hook(lambda _, __, output: kinds.add(output.dtype))
    embed(model, images(), precision=precision)
    assert kinds == {kind}
