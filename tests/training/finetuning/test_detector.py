import math

import numpy as np
import pytest
import torch

from medssl.models.detection import Box, peaks
from medssl.training.finetuning.detector import boxes_of, detection_loss, targets


def slow_loss(maps: torch.Tensor, wanted: torch.Tensor) -> float:
    """Equations 1 to 4 of CenterNet, cell by cell."""
    dims, heat, size, offset, count = maps.ndim - 2, 0.0, 0.0, 0.0, 0
    for one, want in zip(maps, wanted, strict=True):
        for cell in np.ndindex(*one.shape[1:]):
            p, y = float(one[(0, *cell)].sigmoid()), float(want[(0, *cell)])
            if want[(-1, *cell)] == 1:
                count += 1
                heat -= (1 - p) ** 2 * math.log(p)
                size += sum(abs(float(one[(1 + d, *cell)] - want[(1 + d, *cell)])) for d in range(dims))
                offset += sum(abs(float(one[(1 + dims + d, *cell)] - want[(1 + dims + d, *cell)])) for d in range(dims))
            else:
                heat -= (1 - y) ** 4 * p**2 * math.log(1 - p)
    return (heat + 0.1 * size + offset) / max(count, 1)


@pytest.mark.parametrize("grid", [(5, 4), (4, 3, 3)])
def test_the_loss_agrees_with_a_loop_over_cells(grid: tuple[int, ...]) -> None:
    generator, dims = torch.Generator().manual_seed(0), len(grid)
    boxes = [Box((3.0,) * dims, (4.0,) * dims, 1.0)]
    wanted = torch.stack([targets(boxes, [2 * cells for cells in grid], grid), targets([], [2 * cells for cells in grid], grid)])
    maps = torch.randn(2, 1 + 2 * dims, *grid, generator=generator)
    assert float(detection_loss(maps, wanted)) == pytest.approx(slow_loss(maps, wanted), rel=1e-4)


def test_a_batch_without_lesion_has_a_loss_that_falls_with_the_heat() -> None:
    wanted = targets([], (8, 8), (4, 4))[None]
    high, low = (detection_loss(torch.full((1, 5, 4, 4), logit), wanted) for logit in (0.0, -5.0))
    assert 0 < low < high


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 8)])
def test_peaks_of_the_targets_are_the_lesions(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, dtype=bool)
    mask[(slice(2, 5), slice(3, 8), slice(1, 4))[: len(shape)]] = True
    mask[(slice(10, 12), slice(1, 2), slice(5, 7))[: len(shape)]] = True
    boxes = boxes_of(mask)
    found = peaks(targets(boxes, shape, [length // 2 for length in shape])[:-1], (2,) * len(shape), least=0.99)
    for box, again in zip(sorted(boxes, key=lambda box: box.centre), sorted(found, key=lambda box: box.centre), strict=True):
        assert again.centre == pytest.approx(box.centre)
        assert again.size == pytest.approx(box.size)


def test_voxels_that_touch_at_a_corner_are_one_box() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = mask[1, 1] = True
    assert boxes_of(mask) == [Box((0.5, 0.5), (2.0, 2.0), 1.0)]


def test_the_heat_of_a_flat_lesion_is_flat() -> None:
    heat = targets([Box((16.0, 16.0, 8.0), (24.0, 24.0, 1.0), 1.0)], (32, 32, 16), (32, 32, 16))[0]
    assert heat.max() == 1
    assert heat[18, 16, 8] > 10 * heat[16, 16, 10]
