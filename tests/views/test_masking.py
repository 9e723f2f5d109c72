import pytest
import torch

from medssl.errors import ConfigError
from medssl.views.masking import random_mask
from medssl.views.streams import Streams


def streams(count: int, seed: int = 0) -> Streams:
    return Streams.of(seed, range(count))


def test_the_ratio_is_exact_in_every_sample() -> None:
    mask = random_mask(16, 0.75, streams=streams(5))
    assert mask.hidden.shape == (5, 12)
    assert mask.visible.shape == (5, 4)


def test_visible_and_hidden_are_a_partition() -> None:
    mask = random_mask(10, 0.6, streams=streams(3))
    assert torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values.equal(torch.arange(10).expand(3, 10))


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    first, again, other = (random_mask(64, 0.75, streams=streams(4, seed)).hidden for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_a_ratio_outside_0_and_1_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        random_mask(4, ratio, streams=streams(1))


def test_one_patch_cannot_be_masked() -> None:
    with pytest.raises(ConfigError, match="at least 2 patches"):
        random_mask(1, 0.5, streams=streams(1))
