from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl.data.sampling import Batches
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.objectives.simclr import SimCLR
from medssl.training.planning import cost
from medssl.training.planning.cost import Plan, Watcher, estimate
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.settings import Training


class Fixed(Dataset[dict[str, Tensor]]):
    """The same crops for every number, alone or in pairs."""

    def __init__(self, views: int = 1) -> None:
        self.views = views

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        count = len(indices)
        return {
            "image": torch.ones(count, self.views, 1, 8, 8),
            "number": torch.tensor(indices),
            "patient": torch.zeros(count),
            "corner": torch.zeros(count, self.views, 2),
            "level": torch.zeros(count, self.views, 1),
            "present": torch.ones(count, self.views, 1, dtype=torch.bool),
            "text": torch.zeros(count, 1),
        }


class OneSecondALook:
    def watch_seconds(self, module: L.LightningModule, *, steps: int, done: int) -> float:
        assert isinstance(module, Pretrainer)
        return float(steps - done)


FACTS = {
    "parameters": 1,
    "crops": 8,
    "tokens": 0,
    "watch_seconds": 0,
    "memory_bytes": 1,
    "steps": 10,
    "checkpoint_bytes": 1,
    "epochs": 1,
    "unused": False,
}


def planned(training: Training, module: Pretrainer, *watchers: Watcher, views: int = 1) -> Plan:
    parts = training.accumulate
    loader = DataLoader(Fixed(views), batch_sampler=Batches(training.steps * parts, 8 // parts))
    return estimate(module, loader, training, scans=4, done=2, watchers=watchers)


def pretrainer(training: Training) -> Pretrainer:
    return Pretrainer(MAE(ViT((4, 4), width=8, depth=1, heads=1), decoder_width=8, decoder_depth=1, decoder_heads=1), training, seed=0)


def test_a_plan_leaves_the_module_and_the_random_state_as_they_were() -> None:
    module = pretrainer(Training(steps=10))
    before, state = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    planned(Training(steps=10), module)
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"devices": 2}])
def test_crops_tokens_and_epochs_count_all_devices_and_parts(settings: dict[str, int]) -> None:
    training = Training(steps=10, **settings)
    plan = planned(training, pretrainer(training))
    assert (plan.crops, plan.tokens, plan.steps, plan.epochs) == (8, 32, 8, 20)


def test_a_pair_counts_as_two_crops() -> None:
    training = Training(steps=10)
    objective = SimCLR(ViT((4, 4), width=8, depth=1, heads=1), positives="overlap")
    plan = planned(training, Pretrainer(objective, training, seed=0), views=2)
    assert (plan.crops, plan.tokens, plan.epochs) == (16, 64, 40)


def test_looks_are_part_of_the_time() -> None:
    training = Training(steps=10)
    plan = planned(training, pretrainer(training), OneSecondALook(), OneSecondALook())
    assert plan.watch_seconds == 16
    assert plan.seconds > 16
    assert dict(plan.rows())["watching"] == "0 min 16 s"


def test_time_is_that_of_steps_of_looks_and_of_waiting_for_crops() -> None:
    facts = FACTS | {"watch_seconds": 5}
    slow = Plan(step_seconds=1.0, feed_seconds=3.0, workers=0, **facts)  # type: ignore[arg-type]
    beside = Plan(step_seconds=1.0, feed_seconds=3.0, workers=2, **facts)  # type: ignore[arg-type]
    enough = Plan(step_seconds=1.0, feed_seconds=3.0, workers=4, **facts)  # type: ignore[arg-type]
    assert [plan.seconds for plan in (slow, beside, enough)] == [45, 20, 15]
    assert "is the limit" in str(slow)
    assert "keeps up" in str(enough)


def test_a_plan_asks_no_gpu_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # of which torch warns where it saves the random state of all
    assert planned(Training(steps=10), pretrainer(Training(steps=10))).step_seconds > 0


def test_what_is_spread_over_devices_is_counted_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(steps=10, devices=2, strategy="fsdp")
    module = pretrainer(training)
    monkeypatch.setattr(module, "training_step", None)
    plan = planned(training, module)
    assert plan.memory_bytes == 16 * plan.parameters // 2  # weights, gradients and two moments in float32, on two devices
    assert "not tried" in str(plan)


def test_memory_that_an_earlier_run_still_holds_is_not_called_none() -> None:
    facts = FACTS | {"memory_bytes": 0}
    plan = Plan(step_seconds=1.0, feed_seconds=3.0, workers=0, **facts)  # type: ignore[arg-type]
    assert dict(plan.rows())["memory"] == "what the process holds already"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel tells it on Linux alone")
def test_memory_counts_from_the_peak_so_far_where_that_cannot_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_CLEAR", tmp_path / "none" / "clear_refs")
    assert planned(Training(steps=10), pretrainer(Training(steps=10))).memory_bytes >= 0
