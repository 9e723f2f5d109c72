import json

import pytest
import torch
import torch.nn.functional as F

from benchmarks import pretrain_step
from benchmarks.pretrain_step import ARMS, BEST, SAME, Machine, losses, make_arms, make_peer, operations, peer_loss, speed

MLP = 16
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # monai


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIDE": 16, "PATCH": 8, "PATCHES": 8, "WIDTH": 48, "DEPTH": 1, "DECODER_DEPTH": 1, "BATCH": 2}.items():
        monkeypatch.setattr(pretrain_step, name, value)
    monkeypatch.setattr(pretrain_step, "ARMS", {name: ARMS[name] for name in (SAME, BEST)})
    monkeypatch.setattr(pretrain_step, "matrix_rate", lambda _: 1e9)


def crops(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_step_of_monai_runs_under_bfloat16_as_it_does_on_a_gpu() -> None:
    peer = make_peer(MLP)
    with torch.autocast("cpu", torch.bfloat16):
        loss = peer_loss(peer, crops())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()


def test_the_cast_for_bfloat16_changes_nothing_in_float32() -> None:
    peer, layer = make_peer(MLP), torch.randn(2, 3, 48)
    assert peer.decoder_embed(layer).equal(F.linear(layer, peer.decoder_embed.weight, peer.decoder_embed.bias))


def test_attention_counts_as_its_two_products() -> None:
    tokens = torch.randn(1, 2, 5, 8)
    assert operations(lambda _: float(F.scaled_dot_product_attention(tokens, tokens, tokens).sum())) == 2 * (2 * 2 * 5 * 5 * 8)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_answer_holds_the_ratio_with_the_decoder_of_monai_too(capsys: pytest.CaptureFixture[str], bf16: bool) -> None:
    machine = Machine(bf16=bf16)
    speed(make_arms(crops(4), MLP, 1, machine, 2), MLP, 1, machine, 2)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ratio_same_decoder"] == answer["ratios"][SAME]
    assert answer["ratio"] == answer["ratios"][answer["arm"]]
    assert (answer["mlp"], answer["bf16"]) == (MLP, bf16)


def test_errors_after_equal_steps_say_on_what_device(capsys: pytest.CaptureFixture[str]) -> None:
    losses(crops(4), crops(2), MLP, 1, SAME)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["device"] == "cpu"
