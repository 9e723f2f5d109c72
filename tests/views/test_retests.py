import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medssl.views.retests import RETESTS
from medssl.volume import Volume


def scan_of(sigma: float = 3.0) -> Volume:
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(2, 40, 32, 5)), (0, sigma, sigma, 1))
    return Volume((100 + 20 * smooth / smooth.std()).astype(np.float32), np.eye(4), "MR")


@pytest.mark.parametrize("name", RETESTS)
def test_a_repeated_scan_has_the_same_grid_and_is_the_same_each_time(name: str) -> None:
    scan = scan_of()
    one, two = RETESTS[name](scan), RETESTS[name](scan)
    assert (one.array.shape, one.array.dtype) == (scan.array.shape, np.float32)
    np.testing.assert_array_equal(one.array, two.array)
    assert not np.array_equal(one.array, scan.array)


@pytest.mark.parametrize("name", RETESTS)
def test_the_lesion_goes_where_the_scan_goes(name: str) -> None:
    scan = scan_of()
    bright = scan.array[0] > 120
    moved = RETESTS[name](scan).array[0] > 120
    expected = RETESTS[name].mask(bright)
    assert 2 * (moved & expected).sum() / (moved.sum() + expected.sum()) > 0.95


@pytest.mark.parametrize("name", ["half_voxel", "resampled"])
def test_there_and_back_loses_little_of_what_is_smooth(name: str) -> None:
    scan = scan_of()
    assert np.abs(RETESTS[name](scan).array - scan.array).mean() < 0.05 * scan.array.std()
    flat = Volume(np.full((1, 7, 5, 3), 7.0, np.float32), np.eye(4))
    np.testing.assert_allclose(RETESTS[name](flat).array, 7, rtol=1e-6)


def test_half_a_voxel_there_and_back_spreads_a_point_over_three() -> None:
    point = np.zeros((1, 9, 9, 1), np.float32)
    point[0, 4, 4] = 16
    np.testing.assert_allclose(RETESTS["half_voxel"].change(point)[0, 3:6, 3:6, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
