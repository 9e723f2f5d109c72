"""Every sample has its own randomness."""

import torch

from medssl.views.streams import Streams, mixed


def test_a_sample_draws_the_same_in_any_batch() -> None:
    whole, part = Streams.of(7, range(6)), Streams.of(7, [4, 2])
    assert whole.uniform(3)[[4, 2]].equal(part.uniform(3))
    assert whole.normal(2, 2)[[4, 2]].equal(part.normal(2, 2))
    assert whole.order(9)[[4, 2]].equal(part.order(9))


def test_samples_and_seeds_differ() -> None:
    drawn = torch.cat([Streams.of(seed, range(50)).uniform(1) for seed in range(4)])
    assert len(set(drawn.flatten().tolist())) == 200


def test_seeds_that_would_collide_in_a_sum_do_not() -> None:
    assert mixed(0, 1) != mixed(1, 0)


def test_an_order_is_a_permutation() -> None:
    assert Streams.of(0, range(3)).order(5).sort(dim=1).values.equal(torch.arange(5).expand(3, 5))
