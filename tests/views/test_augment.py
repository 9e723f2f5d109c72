import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.views.augment import Augment, augment
from medssl.views.streams import Streams

NOTHING = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def streams(count: int, seed: int = 0) -> Streams:
    return Streams.of(seed, range(count))


@pytest.mark.parametrize("shape", [(2, 1, 8, 6), (2, 3, 8, 6, 4)])
def test_no_strength_changes_nothing(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    assert augment(images, NOTHING, streams=streams(2)).images.equal(images)


@pytest.mark.parametrize("shape", [(8, 1, 8, 6), (8, 1, 8, 6, 4)])
def test_a_mask_moves_with_its_image(shape: tuple[int, ...]) -> None:
    images = (torch.rand(shape) > 0.5).float()
    settings = Augment(flip=0.5, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
    view = augment(images, settings, streams=streams(8), masks=images.clone())
    assert view.masks is not None
    torch.testing.assert_close(view.images.round(), view.masks)
    assert not view.images.equal(images)


def test_a_quarter_turn_of_a_square_is_a_rotation_without_shear() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4:] = 1  # a line along the second axis
    settings = Augment(flip=0, rotate_degrees=45, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
    turned = augment(image.expand(50, -1, -1, -1), settings, streams=streams(50)).images
    lengths = turned.sum(dim=(1, 2, 3))
    assert lengths.min() > 4
    assert lengths.max() < 8


def test_the_same_seed_gives_the_same_views() -> None:
    images = torch.randn(2, 1, 8, 8)
    first, again = (augment(images, Augment(), streams=streams(2, 3)).images for _ in range(2))
    assert first.equal(again)


@pytest.mark.parametrize("shape", [(6, 1, 8, 6), (6, 2, 8, 6, 4)])
def test_flips_alone_are_what_resampling_gives(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    view = augment(images, Augment(flip=0.5, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0), streams=streams(6))
    grid = F.affine_grid(view.theta, list(shape), align_corners=False)
    torch.testing.assert_close(view.images, F.grid_sample(images, grid, align_corners=False), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 2, 8, 6), (6, 2, 8, 6, 4)])
def test_views_are_linearly_interpolated_where_theta_says(shape: tuple[int, ...]) -> None:
    images, masks = torch.randn(shape), (torch.rand(shape) > 0.5).float()
    settings = Augment(rotate_degrees=40, scale=0.3, shift=0.2, area=0.5, gain=0, offset=0, noise=0, blur=0)
    view = augment(images, settings, streams=streams(6), masks=masks)
    grid = F.affine_grid(view.theta, list(shape), align_corners=False)
    torch.testing.assert_close(view.images, F.grid_sample(images, grid, padding_mode="border", align_corners=False), atol=1e-5, rtol=1e-5)
    share = F.grid_sample(masks, grid, align_corners=False)
    assert view.masks is not None
    assert ((view.masks == (share >= 0.5)) | ((share - 0.5).abs() < 1e-5)).all()


@pytest.mark.parametrize("shape", [(4, 1, 40, 30), (4, 1, 40, 30, 8)])
def test_lower_precision_of_training_does_not_move_voxels(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        lower = augment(images, Augment(), streams=streams(4)).images
    assert lower.equal(augment(images, Augment(), streams=streams(4)).images)


def test_a_view_does_not_depend_on_the_batch_around_it() -> None:
    images = torch.randn(4, 1, 8, 8)
    whole = augment(images, Augment(), streams=Streams.of(0, [3, 4, 5, 6])).images
    part = augment(images[2:], Augment(), streams=Streams.of(0, [5, 6])).images
    torch.testing.assert_close(whole[2:], part)


def test_negative_strength_is_refused() -> None:
    with pytest.raises(ConfigError, match=">= 0"):
        Augment(noise=-1)
