import pytest
import torch

from medssl.errors import ConfigError
from medssl.views.augment import Augment, augment

NOTHING = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2, 1, 8, 6), (2, 3, 8, 6, 4)])
def test_no_strength_changes_nothing(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    same, _ = augment(images, None, NOTHING, generator=generator())
    torch.testing.assert_close(same, images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 8, 6), (8, 1, 8, 6, 4)])
def test_a_mask_moves_with_its_image(shape: tuple[int, ...]) -> None:
    images = (torch.rand(shape) > 0.5).float()
    settings = Augment(flip=0.5, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
    moved, masks = augment(images, images.clone(), settings, generator=generator())
    assert masks is not None
    torch.testing.assert_close(moved.round(), masks)
    assert not moved.equal(images)


def test_a_quarter_turn_of_a_square_is_a_rotation_without_shear() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4:] = 1  # a line along the second axis
    settings = Augment(flip=0, rotate_degrees=45, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
    turned, _ = augment(image.expand(50, -1, -1, -1), None, settings, generator=generator())
    lengths = turned.sum(dim=(1, 2, 3))
    assert lengths.min() > 4
    assert lengths.max() < 8


def test_the_same_seed_gives_the_same_views() -> None:
    images = torch.randn(2, 1, 8, 8)
    first, again = (augment(images, None, Augment(), generator=generator(3))[0] for _ in range(2))
    assert first.equal(again)


def test_negative_strength_is_refused() -> None:
    with pytest.raises(ConfigError, match=">= 0"):
        Augment(noise=-1)
