"""The text tower: what of a sentence its features depend on."""

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.text import TextTower, sentences


def bytes_of(*texts: str, length: int = 32) -> torch.Tensor:
    return torch.tensor([[*text.encode(), *[0] * (length - len(text.encode()))] for text in texts], dtype=torch.uint8)


def tower(patch: int = 1) -> TextTower:
    torch.manual_seed(0)
    return TextTower(width=16, depth=2, heads=2, patch=patch)


@pytest.mark.parametrize("patch", [1, 4, 5])
def test_room_behind_the_end_of_a_sentence_changes_nothing(patch: int) -> None:
    network = tower(patch)
    short, long = network(bytes_of("no lesion", length=10)), network(bytes_of("no lesion", length=30))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


def test_the_order_of_bytes_counts() -> None:
    one, other = tower()(bytes_of("left", "felt"))
    assert not torch.allclose(one, other, atol=1e-3)


def test_letters_of_any_language_are_read() -> None:
    assert tower()(bytes_of("größe 3 mm", "正常")).shape == (2, 16)


def test_an_empty_sentence_has_finite_features_and_gradients() -> None:
    network = tower()
    network(bytes_of("", "a")).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_same_sentence_has_the_same_number() -> None:
    numbers = sentences(bytes_of("a", "b", "a"))
    assert numbers[0] == numbers[2] != numbers[1]


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads divide the width"):
        TextTower(width=10, heads=3)
