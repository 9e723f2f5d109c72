"""Leaning slices on a grid with right angles: what is a straight line in the world stays one, at its place."""

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from medssl.io.discover import read_folder, read_volume
from medssl.io.options import ReadOptions
from medssl.io.tilt import straightened
from medssl.io.voxels import RawScan

RESAMPLE = ReadOptions(tilt="resample")


def leaning(degrees: float, *, turn: bool = False) -> np.ndarray:
    """The affine of slices 3 mm apart that were tilted about the x axis, with some shift along x too."""
    affine = np.diag([-0.8, -0.7, 1.0, 1.0])
    affine[:3, 2] = [0.1, 3 * np.tan(np.radians(degrees)), 3.0]
    affine[:3, 3] = [9.0, -4.0, 2.0]
    if turn:
        angle = np.radians(20)
        rotation = np.eye(4)
        rotation[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = rotation @ affine
    return affine


def places(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World coordinates (3, I, J, K) of all voxels."""
    return np.einsum("ab,bijk->aijk", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


def ramp(world: np.ndarray) -> np.ndarray:
    return 100 + 2.0 * world[0] - 3.0 * world[1] + 0.5 * world[2]


@pytest.mark.parametrize("degrees", [-17.0, 5.0, 30.0])
@pytest.mark.parametrize("turn", [False, True])
def test_a_ramp_in_the_world_is_the_same_ramp_on_the_new_grid(degrees: float, turn: bool) -> None:
    affine = leaning(degrees, turn=turn)
    values = ramp(places(affine, (24, 20, 9)))
    straight = straightened(RawScan(values, affine, warnings=("gantry_tilt", "no_rescale")))
    axes = straight.affine[:3, :3] / np.linalg.norm(straight.affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert straight.warnings == ("tilt_resampled", "no_rescale")
    known = straight.values > values.min() + 1e-3
    assert known.sum() > 0.9 * (24 - 1) * (20 - 1) * 9
    assert np.allclose(straight.values[known], ramp(places(straight.affine, straight.values.shape))[known], atol=1e-3)


def test_no_voxel_of_the_scan_is_outside_the_new_grid() -> None:
    affine = leaning(25)
    straight = straightened(RawScan(np.ones((24, 20, 9)), affine, warnings=("gantry_tilt",)))
    corners = np.array([[i, j, k, 1] for i in (0, 23) for j in (0, 19) for k in (0, 8)]).T
    index = (np.linalg.inv(straight.affine) @ affine @ corners)[:3].T
    assert index.min() > -1e-6
    assert (index <= np.array(straight.values.shape) - 1 + 1e-6).all()


def test_a_sphere_is_round_and_in_its_place_again() -> None:
    affine = leaning(20)
    world = places(affine, (48, 48, 15))
    centre = world.reshape(3, -1).mean(axis=1)
    sphere = np.linalg.norm(world - centre[:, None, None, None], axis=0) < 12
    straight = straightened(RawScan(sphere.astype(np.uint8), affine, warnings=("gantry_tilt",)), mask=True)
    assert set(np.unique(straight.values)) == {0, 1}
    inside = places(straight.affine, straight.values.shape)[:, straight.values > 0]
    assert np.allclose(inside.mean(axis=1), centre, atol=0.1)
    volume = (straight.values > 0).sum() * abs(np.linalg.det(straight.affine[:3, :3]))
    assert volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
    assert np.linalg.norm(inside - centre[:, None], axis=0).max() < 12.6


def test_the_planes_stay_where_they_are() -> None:
    affine = leaning(20)
    straight = straightened(RawScan(np.ones((24, 20, 9)), affine, warnings=("gantry_tilt",)))
    assert straight.affine[2, 3] == affine[2, 3]
    assert straight.affine[2, 2] == pytest.approx(3.0)


def test_whole_shifts_interpolate_nothing() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = -1.0
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 3))
    straight = straightened(RawScan(values, affine, warnings=("sheared_affine",)))
    assert straight.values.shape == (4, 7, 3)
    for k in range(3):
        assert np.array_equal(straight.values[:, 2 - k : 7 - k, k], values[:, :, k])


def test_slices_that_are_askew_themselves_are_left_alone() -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    scan = RawScan(np.ones((4, 4, 4)), affine, warnings=("sheared_affine",))
    assert straightened(scan) is scan


def tilt(ds: Dataset, k: int) -> None:
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x, round(y + 0.9 * k, 4), z]


def test_a_tilted_series_keeps_its_shear_unless_somebody_chooses(write_series, voxels) -> None:
    folder = write_series(tilt)
    (reading,) = read_folder(folder)
    assert reading.record.reasons == ("gantry_tilt",)
    assert np.array_equal(read_volume(folder).array[0], voxels)


def test_a_tilted_series_is_resampled_on_request(write_series, voxels) -> None:
    (reading,) = read_folder(write_series(tilt), RESAMPLE)
    assert reading.record.reasons == ("tilt_resampled",)
    assert reading.volume is not None
    assert reading.volume.shape == (40, 39, 4)
    for k in range(4):  # one pixel of 0.9 mm a slice, towards the back
        assert np.array_equal(reading.volume.array[0, :, 3 - k : 39 - k, k], voxels[:, :, k])
    assert reading.volume.spacing_mm == pytest.approx((0.7, 0.9, 2.5))


def test_a_mask_of_the_leaning_grid_stays_a_mask(tmp_path) -> None:
    affine = leaning(20)
    mask = np.zeros((24, 20, 9), np.uint8)
    mask[5:15, 5:15, 3:6] = 3
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii")
    volume = read_volume(tmp_path / "mask.nii", RESAMPLE, constant_allowed=True)
    assert set(np.unique(volume.array)) == {0, 3}
    assert int((volume.array > 0).sum()) == pytest.approx(300, rel=0.1)


def test_each_class_of_a_mask_keeps_its_value_and_its_place() -> None:
    mask = np.zeros((24, 20, 9), np.uint8)
    mask[5:15, 4:9, 3:6], mask[5:15, 9:14, 3:6] = 4, 1
    moved = straightened_mask(mask)
    assert np.array_equal(moved > 0, straightened_mask(mask > 0) > 0)
    for value in (1, 4):
        assert set(moved[straightened_mask(mask == value) > 0]) == {value}


def test_a_mask_of_many_values_becomes_lesion_and_none() -> None:
    mask = np.zeros((24, 20, 9), np.uint8)
    mask[2:22, 5:15, 3:6] = np.arange(1, 21)[:, None, None]
    assert set(np.unique(straightened_mask(mask))) == {0, 1}


def test_around_a_full_mask_is_no_lesion() -> None:
    assert straightened_mask(np.ones((24, 20, 9), np.uint8)).min() == 0


def straightened_mask(mask: np.ndarray) -> np.ndarray:
    return straightened(RawScan(mask, leaning(20), warnings=("gantry_tilt",)), mask=True).values
