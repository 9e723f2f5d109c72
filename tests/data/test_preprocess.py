import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from medssl.data.preprocess import Preprocess, carry_back, carry_back_slices, resample
from medssl.errors import ConfigError
from medssl.io.options import ReadOptions
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


def test_a_few_voxels_below_air_leave_air_outside() -> None:
    plain, ringing = scan((32, 32, 4)), scan((32, 32, 4))
    for volume in (plain, ringing):
        volume.array[:, :12] = 0  # air
    ringing.array[0, 13, ::8, 0] = -30
    found, expected = (Preprocess(crop_foreground=True)(volume).array for volume in (ringing, plain))
    assert found.shape == expected.shape == (1, 22, 32, 4)
    np.testing.assert_allclose(np.median(found), np.median(expected), atol=0.01)


def test_a_window_maps_hu_to_0_and_1() -> None:
    volume = Volume(np.array([-500.0, -160.0, 40.0, 240.0, 900.0], np.float32).reshape(1, 5, 1, 1), np.eye(4))
    values = Preprocess(intensity="window", window_hu=(-160, 240))(volume).array.ravel()
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1])


def test_percentiles_are_those_of_the_foreground() -> None:
    volume = scan()
    volume.array[:, :5] = 0  # air: more than half of the voxels
    values = Preprocess(intensity="percentile")(volume).array
    assert (values.min(), values.max()) == (0, 1)
    assert abs(float(np.median(values[:, 5:])) - 0.5) < 0.15
    assert not values[:, :5].any()


def test_a_window_does_not_depend_on_what_else_is_in_the_scan() -> None:
    tissue = np.full((1, 4, 4, 4), 40.0, np.float32)
    metal = tissue.copy()
    metal[0, 0, 0, 0] = 3000
    window = Preprocess(intensity="window", window_hu=(-160, 240))
    assert window(Volume(metal, np.eye(4))).array[0, 3, 3, 3] == window(Volume(tissue, np.eye(4))).array[0, 3, 3, 3] == 0.5


def framed() -> Volume:
    """A bright block in the dark, off the middle."""
    array = np.zeros((1, 24, 30, 16), np.float32)
    array[0, 6:16, 10:26, 5:12] = np.random.default_rng(0).normal(100, 10, (10, 16, 7))
    return Volume(array, np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 7], [0, 0, 2, 9], [0, 0, 0, 1.0]]))


CROPPED = [Preprocess(crop_foreground=True), Preprocess(spacing_mm=(1.8, 1.8, 0.0), crop_foreground=True)]


@pytest.mark.parametrize("preprocess", CROPPED, ids=["own grid", "resampled"])
def test_what_surrounds_the_foreground_is_left_out_and_its_place_kept(preprocess: Preprocess) -> None:
    prepared = preprocess(framed())
    start = np.linalg.inv(framed().affine) @ prepared.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(start[:3] + 0.5, [4, 8, 3], atol=1e-9)  # two voxels of margin
    assert prepared.shape == ((14, 20, 11) if preprocess.spacing_mm is None else (7, 10, 11))


@pytest.mark.parametrize("preprocess", [Preprocess(), *CROPPED], ids=["whole", "own grid", "resampled"])
def test_a_map_comes_back_to_the_place_of_what_it_marks(preprocess: Preprocess) -> None:
    volume = framed()
    prepared = preprocess(volume)
    back = carry_back((prepared.array[0] > -3).astype(np.float32), prepared, volume) >= 0.5
    assert back.shape == volume.shape
    assert (back == (volume.array[0] > 60)).mean() > 0.99


def test_values_inside_the_crop_are_those_without_it() -> None:
    whole, cropped = Preprocess()(framed()), Preprocess(crop_foreground=True)(framed())
    np.testing.assert_array_equal(cropped.array, whole.array[:, 4:18, 8:28, 3:14])


def test_a_mask_is_cropped_with_its_scan() -> None:
    preprocess = Preprocess(crop_foreground=True)
    mask = np.zeros((1, 24, 30, 16), np.uint8)
    mask[0, 7, 11, 6] = 1
    lesion = preprocess.lesion(Volume(mask, framed().affine), preprocess(framed()))
    assert np.argwhere(lesion).tolist() == [[0, 3, 3, 3]]


def test_scores_of_slices_come_back_to_their_slices() -> None:
    prepared = Preprocess(crop_foreground=True)(framed())
    scores = carry_back_slices(tuple(np.arange(1.0, 12.0)), prepared, framed())
    assert scores == (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0)


def test_a_dark_frame_of_noise_is_no_foreground() -> None:
    volume = framed()
    volume.array[0] += np.random.default_rng(1).normal(0, 1, volume.shape)
    assert Preprocess(crop_foreground=True)(volume).shape == (14, 20, 11)


def test_a_mask_lands_on_the_grid_of_its_scan() -> None:
    mask = np.zeros((1, 8, 8, 4), np.uint8)
    mask[0, 4:, :, :] = 3
    preprocess = Preprocess(spacing_mm=(2.0, 2.0, 0.0))
    lesion = preprocess.lesion(Volume(mask, scan().affine), preprocess(scan()))
    assert lesion[0, :, 0, 0].tolist() == [0, 0, 3, 3]


def test_a_lesion_too_small_for_the_grid_keeps_a_voxel() -> None:
    volume = scan((16, 16, 4), (0.5, 0.5, 3.0))
    mask = np.zeros((1, 16, 16, 4), np.uint8)
    mask[0, 5:7, 3, 2] = 2  # over two voxels of the new grid, each with a quarter of it
    mask[0, 10:14, 10:14, 1] = 1
    preprocess = Preprocess(spacing_mm=(1.0, 1.0, 0.0))
    found = preprocess.lesion(replace(volume, array=mask), preprocess(volume))
    assert np.argwhere(found[0] == 2).tolist() == [[2, 1, 2]]
    assert np.argwhere(found[0] == 1).tolist() == [[i, j, 1] for i in (5, 6) for j in (5, 6)]


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
    assert Preprocess.from_dict(json.loads(json.dumps(asdict(settings)))) == settings


def test_ways_of_reading_that_nobody_chose_leave_the_identity_alone() -> None:
    settings = Preprocess(spacing_mm=(1.0, 1.0, 0.0))
    chosen = replace(settings, read=ReadOptions(four_d="split"))
    assert "read" not in settings.as_dict()
    assert settings.digest() == "0bc1ff56c1c3cb9a008919f522fc1bcb179d39b3cb7dc9a7424954cccc655280"
    assert chosen.digest() != settings.digest()
    assert Preprocess.from_dict(json.loads(json.dumps(chosen.as_dict()))) == chosen


def test_spacing_and_matrix_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="found both"):
        Preprocess(spacing_mm=(1, 1, 1), matrix=(8, 8))
