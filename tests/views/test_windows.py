import pytest
import torch

from medssl.errors import ConfigError
from medssl.views.streams import Streams
from medssl.views.windows import window


@pytest.mark.parametrize("shape", [(6, 2, 9, 7), (6, 2, 9, 7, 5)])
def test_a_window_is_a_part_of_its_crop(shape: tuple[int, ...]) -> None:
    images = torch.arange(torch.Size(shape).numel()).view(shape)
    size = [4, 3, 2][: len(shape) - 2]
    parts = window(images, size, streams=Streams.of(0, range(6)))
    assert parts.shape == (6, 2, *size)
    for image, part in zip(images, parts, strict=True):
        corner = (image[0] == part[0].flatten()[0]).nonzero()[0].tolist()
        assert image[(slice(None), *(slice(start, start + width) for start, width in zip(corner, size, strict=True)))].equal(part)


def test_windows_reach_every_place() -> None:
    images = torch.arange(5).expand(200, 1, 1, 5)
    assert set(window(images, [1, 2], streams=Streams.of(0, range(200)))[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}


def test_a_window_of_the_whole_crop_is_the_crop() -> None:
    images = torch.randn(2, 1, 4, 4)
    assert window(images, [4, 4], streams=Streams.of(0, range(2))).equal(images)


def test_a_window_larger_than_the_crop_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        window(torch.zeros(1, 1, 4, 4), [5, 4], streams=Streams.of(0, range(1)))
