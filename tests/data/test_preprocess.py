import numpy as np
import pytest

from medssl.data.preprocess import Preprocess, resample
from medssl.errors import ConfigError
from medssl.volume import Volume


def scan(shape: tuple[int, int, int] = (8, 8, 4), spacing: tuple[float, float, float] = (1.0, 1.0, 3.0)) -> Volume:
    array = np.random.default_rng(0).normal(100, 10, (1, *shape)).astype(np.float32)
    return Volume(array, np.diag([*spacing, 1.0]))


def test_the_grid_follows_the_spacing_and_0_keeps_the_slices() -> None:
    assert Preprocess(spacing_mm=(2.0, 2.0, 0.0)).grid(scan()) == (4, 4, 4)


def test_the_field_of_view_stays_where_it_is() -> None:
    before = scan()
    after = Preprocess(spacing_mm=(2.0, 2.0, 0.0))(before)
    corner_before = before.affine @ [-0.5, -0.5, -0.5, 1]
    corner_after = after.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(corner_after, corner_before)
    np.testing.assert_allclose(after.spacing_mm, (2, 2, 3))


def test_a_scan_without_geometry_is_brought_to_the_matrix() -> None:
    assert Preprocess(matrix=(16, 12))(scan()).shape == (16, 12, 4)


def test_zscore_has_mean_0_and_deviation_1_over_the_foreground() -> None:
    volume = scan()
    volume.array[:, :2] = 0  # air
    values = Preprocess()(volume).array[:, 2:]
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01


def test_a_window_maps_hu_to_0_and_1() -> None:
    volume = Volume(np.array([-500.0, -160.0, 40.0, 240.0, 900.0], np.float32).reshape(1, 5, 1, 1), np.eye(4))
    values = Preprocess(intensity="window", window_hu=(-160, 240))(volume).array.ravel()
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1])


def test_a_mask_lands_on_the_grid_of_its_scan() -> None:
    mask = np.zeros((1, 8, 8, 4), np.uint8)
    mask[0, 4:, :, :] = 3
    lesion = Preprocess(spacing_mm=(2.0, 2.0, 0.0)).lesion(Volume(mask, scan().affine))
    assert lesion[0, :, 0, 0].tolist() == [0, 0, 1, 1]


def test_nan_voxels_do_not_spread() -> None:
    volume = scan()
    volume.array[0, 0, 0, 0] = np.nan
    assert np.isfinite(Preprocess()(volume).array).all()


def test_resampling_there_and_back_keeps_a_smooth_map() -> None:
    i, j = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 16), indexing="ij")
    smooth = (i + j)[:, :, None].astype(np.float32)
    back = resample(resample(smooth, (32, 32, 1)), (16, 16, 1))
    np.testing.assert_allclose(back[2:-2, 2:-2], smooth[2:-2, 2:-2], atol=0.02)


def test_settings_survive_json() -> None:
    settings = Preprocess(spacing_mm=(1.0, 1.0, 0.0))
    assert Preprocess.from_dict({"spacing_mm": [1.0, 1.0, 0.0], "matrix": None, "intensity": "zscore", "window_hu": None}) == settings


def test_spacing_and_matrix_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="found both"):
        Preprocess(spacing_mm=(1, 1, 1), matrix=(8, 8))
