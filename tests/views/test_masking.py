import math

import pytest
import torch

from medssl.errors import ConfigError
from medssl.views.masking import Masking, MaskKind, partition
from medssl.views.streams import Streams

KINDS: tuple[MaskKind, ...] = ("random", "block", "hierarchical")
GRIDS = ((8, 8), (4, 6, 8), (3, 5, 7), (2, 1))


def streams(count: int, seed: int = 0) -> Streams:
    return Streams.of(seed, range(count))


def test_the_ratio_is_exact_in_every_sample() -> None:
    mask = Masking(0.75).partition((16,), streams=streams(5))
    assert mask.hidden.shape == (5, 12)
    assert mask.visible.shape == (5, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("side", [1, 3, 4])
def test_every_kind_hides_the_same_number_of_cells_in_each_sample(kind: MaskKind, grid: tuple[int, ...], side: int) -> None:
    for ratio in (0.1, 0.6, 0.9):
        hidden = Masking(ratio, kind, side).hidden(grid, streams=streams(6))
        cells = math.prod(grid)
        assert hidden.shape == (6, *grid)
        assert hidden.flatten(1).sum(dim=1).tolist() == [min(max(round(ratio * cells), 1), cells - 1)] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_depends_on_its_sample_alone(kind: MaskKind) -> None:
    masking = Masking(0.6, kind, 3)
    together = masking.hidden((6, 6), streams=streams(4))
    alone = [masking.hidden((6, 6), streams=Streams.of(0, [number])) for number in range(4)]
    assert together.equal(torch.cat(alone))
    assert not together.equal(masking.hidden((6, 6), streams=streams(4, seed=1)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_after_a_mask_does_not_depend_on_the_batch(kind: MaskKind) -> None:
    both, one = streams(2), streams(1)
    for source in (both, one):
        Masking(0.6, kind, 3).hidden((6, 6), streams=source)
    assert both.uniform()[0] == one.uniform()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_is_hidden_more_often_than_another(kind: MaskKind) -> None:
    often = Masking(0.5, kind, 2).hidden((4, 4), streams=streams(1500)).float().mean(dim=0)
    assert often.min() > 0.44
    assert often.max() < 0.56


def neighbours(hidden: torch.Tensor) -> float:
    """Share of pairs of cells beside each other, one of them hidden, of which both are."""
    pairs = [(hidden[:, 1:], hidden[:, :-1]), (hidden[:, :, 1:], hidden[:, :, :-1])]
    return float(sum((a & b).sum() for a, b in pairs) / sum((a | b).sum() for a, b in pairs))


def test_boxes_and_coarse_blocks_hang_together() -> None:
    random, block, hierarchical = (neighbours(Masking(0.5, kind, 4).hidden((16, 16), streams=streams(20))) for kind in KINDS)
    assert block > random + 0.2
    assert hierarchical > random + 0.1


def test_hierarchical_masks_hide_whole_blocks_of_each_scale_and_single_cells() -> None:
    hidden = Masking(0.75, "hierarchical", 4).hidden((16, 16), streams=streams(8))
    for sample in hidden:
        coarse = sample.unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).all(dim=2)
        fine = sample.unfold(0, 2, 2).unfold(1, 2, 2).flatten(2).float().mean(dim=2)
        assert coarse.sum() >= 4  # a third of 192 cells, in blocks of 16
        assert ((fine > 0) & (fine < 1)).any()


def test_indices_and_grid_say_the_same() -> None:
    hidden = Masking(0.6, "block", 2).hidden((4, 5), streams=streams(3))
    mask = Masking(0.6, "block", 2).partition((4, 5), streams=streams(3))
    for row in range(3):
        assert hidden[row].flatten().nonzero()[:, 0].equal(mask.hidden[row])
        assert (~hidden[row]).flatten().nonzero()[:, 0].equal(mask.visible[row])
    assert partition(hidden).hidden.equal(mask.hidden)


def test_visible_and_hidden_are_a_partition() -> None:
    mask = Masking(0.6).partition((10,), streams=streams(3))
    assert torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values.equal(torch.arange(10).expand(3, 10))


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    first, again, other = (Masking(0.75).partition((64,), streams=streams(4, seed)).hidden for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_a_ratio_outside_0_and_1_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        Masking(ratio).partition((4,), streams=streams(1))


def test_a_box_without_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match="side must be at least 1 cell, got 0"):
        Masking(0.5, "block", 0)


def test_one_patch_cannot_be_masked() -> None:
    with pytest.raises(ConfigError, match="at least 2 patches"):
        Masking(0.5).partition((1,), streams=streams(1))


def test_a_partition_reads_nothing_back_from_the_device() -> None:
    mask = Masking(0.75).partition((4, 4), streams=streams(3), device=torch.device("meta"))  # which has no values to read
    assert (mask.visible.shape, mask.hidden.shape) == ((3, 4), (3, 12))
    assert mask.hidden.device.type == "meta"
