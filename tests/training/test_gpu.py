"""What only a GPU can show; skipped without one. All of it: `pytest tests/training/test_gpu.py tests/benchmarks -q`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import pretrain_step
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.models.vit import ViT
from medssl.training.finetuning import finetune
from medssl.training.launch import launch_finetune, launch_pretrain
from medssl.training.protocols import features
from medssl.views.batch import Batch
from medssl.views.streams import Streams
from tests.objectives.sharded_step import METHODS
from tests.training.scale.test_scale import TOLERANCE, config, finetune_config, largest_difference

# What the command hides too: torch on FSDP with one GPU and on waiting for it, MONAI on grids.
pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"), pytest.mark.filterwarnings("ignore")]
METHODS_OF_RUNS = ["mae.MAE", "simclr.SimCLR", "moco.MoCo"]


@pytest.fixture
def impatient() -> Iterator[Callable[[], None]]:
    """What makes waiting for the GPU an error until the end of the test."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"image_text"}))
def test_the_forward_pass_of_a_method_does_not_wait_for_the_gpu(method: str, impatient: Callable[[], None]) -> None:
    objective = METHODS[method](ViT((4, 4), width=24, depth=1, heads=2)).cuda()
    batch = Batch.of(torch.randn(3, 1, 16, 16).cuda(), Streams.of(0, range(3)))
    objective(batch)  # positions are made once
    impatient()
    objective(batch)


@pytest.mark.parametrize("method", METHODS_OF_RUNS)
def test_a_network_spread_by_fsdp_learns_what_a_whole_one_learns(tmp_path: Path, store: Path, method: str) -> None:
    launch_pretrain([*config(store, method), "--out", str(tmp_path / "whole")])
    launch_pretrain([*config(store, method, name="fsdp.yaml", strategy="fsdp"), "--out", str(tmp_path / "spread")])
    assert largest_difference(tmp_path / "whole", tmp_path / "spread") < TOLERANCE


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", METHODS_OF_RUNS)
def test_two_gpus_learn_what_one_learns(tmp_path: Path, store: Path, method: str, strategy: str) -> None:
    launch_pretrain([*config(store, method), "--out", str(tmp_path / "one")])
    launch_pretrain([*config(store, method, name="two.yaml", devices=2, strategy=strategy), "--out", str(tmp_path / "two")])
    assert largest_difference(tmp_path / "one", tmp_path / "two") < TOLERANCE


@pytest.mark.parametrize("protocol", ["full", "knn"])
def test_validation_and_frozen_features_are_computed_on_the_gpu(
    tmp_path: Path, store: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, score, ask = dict[str, str](), finetune.score_cases, features.asked

    def scored(network: Network, *given: Any, **how: Any) -> Any:  # noqa: ANN401
        seen["validation"] = next(network.parameters()).device.type
        return score(network, *given, **how)

    def asked(encoder: Encoder, images: torch.Tensor, *, dense: bool) -> torch.Tensor:
        seen["features"] = next(encoder.parameters()).device.type
        return ask(encoder, images, dense=dense)

    monkeypatch.setattr(finetune, "score_cases", scored)
    monkeypatch.setattr(features, "asked", asked)
    launch_finetune([*finetune_config(store), "--protocol", protocol, "--tuning.bank", "64", "--out", str(tmp_path / "run")])
    assert seen == {"validation": "cuda"} | ({"features": "cuda"} if protocol == "knn" else {})


def test_the_masked_step_is_timed_on_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    pool = torch.randn(4, 1, *(pretrain_step.SIDE,) * 3)
    machine = pretrain_step.Machine("cuda", bf16=True)
    pretrain_step.speed(pretrain_step.make_arms(pool, 1536, 1, machine, 4), 1536, 1, machine, 4)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["device"] == "cuda"
