from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from medssl.views.augment import Augment, augment
from medssl.views.intensity import IN_ORDER, bias, coarse, cutout, gamma, histogram
from medssl.views.streams import Streams

SHAPES = [(6, 2, 16, 12), (6, 2, 16, 12, 8)]
STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def images_of(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def streams(count: int = 6) -> Streams:
    return Streams.of(0, range(count))


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_is_a_function_of_the_sample_alone(name: str, shape: tuple[int, ...]) -> None:
    images = images_of(shape)
    whole = IN_ORDER[name](images, 0.5, Streams.of(1, range(6)))
    part = IN_ORDER[name](images[[4, 2]], 0.5, Streams.of(1, [4, 2]))
    assert not whole.equal(images)
    torch.testing.assert_close(whole[[4, 2]], part)


@pytest.mark.parametrize("name", IN_ORDER)
def test_every_change_is_reached_by_its_setting(name: str) -> None:
    images = images_of(SHAPES[0])
    changed = augment(images, replace(STILL, **{name: 0.8}), streams=streams())
    assert changed.images.shape == images.shape
    assert not changed.images.equal(images)


def order_of(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(2).argsort(dim=2)


def test_gamma_keeps_the_range_and_the_order_of_values() -> None:
    images = images_of(SHAPES[1])
    changed = gamma(images, 0.5, streams())
    torch.testing.assert_close(changed.amax(dim=(2, 3, 4)), images.amax(dim=(2, 3, 4)))
    torch.testing.assert_close(changed.amin(dim=(2, 3, 4)), images.amin(dim=(2, 3, 4)), atol=1e-2, rtol=0)
    assert order_of(changed).equal(order_of(images))


def test_gamma_is_the_power_of_the_share_of_the_range() -> None:
    image = torch.linspace(2, 4, 16).view(1, 1, 4, 4)
    power = Streams.of(0, [0]).uniform(low=-0.5, high=0.5).exp()
    torch.testing.assert_close(gamma(image, 0.5, Streams.of(0, [0])), 2 + 2 * ((image - 2) / 2).clamp(min=1e-6) ** power)


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_is_a_smooth_positive_factor_above_the_lowest_value(shape: tuple[int, ...]) -> None:
    images = images_of(shape).abs() + 1
    images[:, :, 0, 0] = 0  # the background
    changed = bias(images, 0.4, streams())
    factor = (changed / images)[images > 0]
    assert changed[:, :, 0, 0].eq(0).all()
    assert 0.67 < factor.min() < 0.95
    assert 1.05 < factor.max() < 1.5
    steps = bias(torch.cat([torch.zeros_like(images[:, :, :1]), torch.ones_like(images)], dim=2), 0.4, streams())[:, :, 1:].diff(dim=2)
    assert steps.abs().max() < 0.25  # two neighbours differ little


@pytest.mark.parametrize("shape", SHAPES)
def test_a_coarse_image_has_less_detail_and_about_the_same_mean(shape: tuple[int, ...]) -> None:
    images = images_of(shape)
    changed = coarse(images, 1.0, streams())
    assert (changed.std(dim=(2, 3)) < images.std(dim=(2, 3))).all()
    torch.testing.assert_close(changed.mean(), images.mean(), atol=0.02, rtol=0)


def test_a_flat_image_stays_flat_in_coarse_resolution() -> None:
    torch.testing.assert_close(coarse(torch.ones(6, 1, 8, 8), 1.0, streams()), torch.ones(6, 1, 8, 8))


def test_a_histogram_shift_bends_values_along_a_rising_curve_with_fixed_ends() -> None:
    image = torch.linspace(-1, 3, 64).view(1, 1, 8, 8).expand(6, 1, 8, 8)
    changed = histogram(image, 1.0, streams()).flatten(1)
    assert (changed.diff(dim=1) > -1e-6).all()
    torch.testing.assert_close(changed[:, [0, -1]], torch.tensor([[-1.0, 3.0]]).expand(6, 2))
    assert (changed - image.flatten(1)).abs().amax(dim=1).min() > 0.02
    assert len({round(float(row[20]), 4) for row in changed}) == 6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cutout_is_one_box_of_the_mean(shape: tuple[int, ...]) -> None:
    images = images_of(shape)
    changed = cutout(images, 1.0, streams())
    for before, after in zip(images, changed, strict=True):
        erased = (before != after).all(dim=0)
        places = erased.nonzero()
        low, high = places.amin(dim=0), places.amax(dim=0) + 1
        assert erased.sum() == (high - low).prod()
        assert ((high - low) <= 0.4 * torch.tensor(before.shape[1:]) + 1).all()
        for channel in range(2):
            torch.testing.assert_close(after[channel][erased], before[channel].mean().expand(len(places)))


def test_a_constant_image_survives_every_change() -> None:
    settings = Augment(bias=0.5, coarse=1.0, gamma=0.5, histogram=1.0, cutout=1.0, blur=1.0)
    assert augment(torch.zeros(4, 1, 8, 8), settings, streams=streams(4)).images.isfinite().all()


def test_a_part_of_the_crop_enlarged_is_where_theta_says() -> None:
    images = images_of((50, 1, 32, 32))
    settings = Augment(flip=0.5, rotate_degrees=0, scale=0, shift=0, area=0.25, gain=0, offset=0, noise=0, blur=0)
    view = augment(images, settings, streams=streams(50))
    edges = view.theta.diagonal(dim1=1, dim2=2).abs()
    assert (edges.amin(), edges.amax()) == (pytest.approx(0.5, abs=0.03), pytest.approx(1, abs=0.03))
    assert edges[:, 0].equal(edges[:, 1])
    assert (view.theta[:, :, 2].abs() + edges).max() <= 1 + 1e-6  # inside the crop
    grid = F.affine_grid(view.theta, [50, 1, 32, 32], align_corners=False)
    torch.testing.assert_close(view.images, F.grid_sample(images, grid, padding_mode="border", align_corners=False))


@pytest.mark.parametrize("part", ["offset", "noise"])
def test_brightness_and_noise_are_in_units_of_the_deviation_of_the_values(part: str) -> None:
    images = images_of((6, 1, 32, 32))
    settings = replace(STILL, **{part: 0.5})
    change = augment(images, settings, streams=streams()).images - images
    dim = 0.03 * images + 0.5  # values between 0 and 1
    torch.testing.assert_close(augment(dim, settings, streams=streams()).images - dim, 0.03 * change, atol=1e-6, rtol=1e-4)
    assert change.abs().amax() > 0.1


def test_an_even_image_stays_as_it_is() -> None:
    even = torch.full((2, 1, 8, 8), 3.0)
    assert augment(even, replace(STILL, offset=0.5, noise=0.5), streams=streams(2)).images.equal(even)
