"""FSDP on processors: a network spread over two processes takes the step of one that is whole."""

from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.models.blocks import Block, CrossBlock
from medssl.models.convolutions import ResidualBlock
from medssl.training.scale.sharding import clipped, followed, spread
from tests.halves import run_halves
from tests.training.scale.sharded_network import OBJECTIVES, SAMPLES, Step, stepped

STEP = Path(__file__).with_name("sharded_network.py")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_halves(STEP, tmp_path_factory.mktemp("halves"), CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_spread_network_and_its_teacher_take_the_clipped_step_of_a_whole_one(halves: Path, name: str) -> None:
    expected = stepped(name, range(SAMPLES), lambda model: model)
    for rank in range(2):
        torch.testing.assert_close(torch.load(halves / f"{name}_{rank}.pt"), expected, atol=1e-5, rtol=1e-3)


def test_the_step_that_is_compared_moves_student_and_teacher() -> None:
    torch.manual_seed(0)
    before, after = Step(OBJECTIVES["moco"]()).state_dict(), stepped("moco", range(SAMPLES), lambda model: model)
    moved = {name for name, tensor in before.items() if not tensor.equal(after[name])}
    assert {"objective.encoder.embed.weight", "objective.teacher.module.embed.weight"} <= moved


def test_blocks_of_every_kind_are_gathered_one_at_a_time() -> None:
    policy = spread().kwargs["auto_wrap_policy"]
    blocks = [Block(8, 2), CrossBlock(8, 2), ResidualBlock(2, 2, (3, 3), (1, 1))]
    chosen = policy._run_policy(nn.ModuleList([*blocks, nn.Linear(2, 2)]), set(), {})
    assert set(chosen) == set(blocks)


def test_a_network_that_is_whole_is_clipped_and_followed_elsewhere() -> None:
    assert not clipped(nn.Linear(2, 2), 1.0)
    with followed(nn.Linear(2, 2)):
        pass
