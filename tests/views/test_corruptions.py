from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medssl.errors import ConfigError
from medssl.views.corruptions import CORRUPTIONS, SEVERITIES, Corruption, Kind, _tissue, kind_of
from medssl.volume import Volume

SPACING = np.diag([1.0, 1.25, 3.0, 1.0])
PANEL = [(name, kind) for name, corruption in CORRUPTIONS.items() for kind in corruption.kinds]


def scan_of(kind: Kind, seed: int = 0, shape: tuple[int, int, int] = (40, 36, 8)) -> Volume:
    """A head with structures in the middle of air that was cut out."""
    generator = np.random.default_rng(seed)
    texture = gaussian_filter(generator.normal(size=(2, *shape)), (0, 2, 2, 1))
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    inside = grid[0] ** 2 + grid[1] ** 2 < 0.6
    values = 400 + 60 * texture / texture.std() + 150 * (grid[0] ** 2 + (grid[1] - 0.2) ** 2 < 0.1)
    air, modality = (-1000.0, "CT") if kind == "CT" else (0.0, "MR" if kind == "MR" else "US")
    tissue = values - 380 if kind == "CT" else values
    return Volume(np.where(inside, tissue, air).astype(np.float32), SPACING, modality)


def damaged(corruption: Corruption, scan: Volume, severity: int, seed: int = 0) -> Volume:
    return corruption(scan, severity, np.random.default_rng(seed))


def rmse(one: Volume, other: Volume) -> float:
    return float(np.sqrt(np.mean((one.array.astype(float) - other.array) ** 2)))


@pytest.mark.parametrize(("name", "kind"), PANEL)
@pytest.mark.parametrize("seed", range(3))
def test_damage_grows_with_severity(name: str, kind: Kind, seed: int) -> None:
    scan = scan_of(kind, seed)
    errors = [rmse(damaged(CORRUPTIONS[name], scan, severity, seed), scan) for severity in range(SEVERITIES + 1)]
    assert errors[0] == 0
    assert all(later > 1.05 * earlier for earlier, later in zip(errors[1:], errors[2:], strict=False))
    assert errors[1] > 0


@pytest.mark.parametrize(("name", "kind"), PANEL)
def test_no_severity_is_no_change(name: str, kind: Kind) -> None:
    scan = scan_of(kind)
    assert damaged(CORRUPTIONS[name], scan, 0) is scan


@pytest.mark.parametrize(("name", "kind"), PANEL)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_grid_and_type_of_values_stay(name: str, kind: Kind, dtype: type) -> None:
    scan = replace(scan_of(kind), array=scan_of(kind).array.astype(dtype))
    before = scan.array.copy()
    after = damaged(CORRUPTIONS[name], scan, 3)
    assert (after.array.shape, after.array.dtype, after.modality) == (before.shape, dtype, scan.modality)
    assert after.affine is scan.affine
    np.testing.assert_array_equal(scan.array, before)  # the scan itself is left alone
    assert np.isfinite(after.array).all()


@pytest.mark.parametrize(("name", "kind"), PANEL)
def test_background_that_was_cut_out_stays(name: str, kind: Kind) -> None:
    scan = scan_of(kind)
    outside = scan.array == scan.array.min()
    after = damaged(CORRUPTIONS[name], scan, 5)
    assert (after.array[outside] == scan.array.min()).mean() > 0.97  # thin corners of the mask are no area


@pytest.mark.parametrize(("name", "kind"), PANEL)
def test_the_same_seed_gives_the_same_damage(name: str, kind: Kind) -> None:
    scan = scan_of(kind)
    one, same = (damaged(CORRUPTIONS[name], scan, 4, seed=7).array for _ in range(2))
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("name", ["rician_noise", "bias_field", "motion"])
def test_another_seed_gives_other_damage(name: str) -> None:
    scan = scan_of("MR")
    assert rmse(damaged(CORRUPTIONS[name], scan, 4, seed=1), damaged(CORRUPTIONS[name], scan, 4, seed=2)) > 0


@pytest.mark.parametrize(("name", "kind"), PANEL)
def test_an_empty_channel_and_one_slice_survive(name: str, kind: Kind) -> None:
    scan = scan_of(kind, shape=(12, 10, 1))
    blank = replace(scan, array=np.concatenate([scan.array, np.zeros_like(scan.array)]))
    if not CORRUPTIONS[name].through_plane:
        after = damaged(CORRUPTIONS[name], blank, 5).array
        assert not after[2:].any()
        assert np.isfinite(after).all()


def test_voxels_that_are_no_number_do_not_spread() -> None:
    scan = scan_of("MR")
    scan.array[0, 20, 20, 4] = np.nan
    for name in ("motion", "ghosting", "blur"):
        assert np.isfinite(damaged(CORRUPTIONS[name], scan, 1).array).all()


@pytest.mark.parametrize(("modality", "names"), [("CT", {"bias_field", "ghosting", "motion", "rician_noise"}), ("MR", {"intensity_shift"})])
def test_what_cannot_happen_to_a_modality_is_refused(modality: str, names: set[str]) -> None:
    scan = replace(scan_of("MR"), modality=modality)
    assert not {name for name in names if CORRUPTIONS[name].suits(scan)}
    with pytest.raises(ConfigError, match="cannot happen"):
        damaged(CORRUPTIONS[min(names)], scan, 1)


def test_one_slice_has_no_thickness_to_change() -> None:
    assert not CORRUPTIONS["slice_thickness"].suits(scan_of("MR", shape=(8, 8, 1)))


def test_a_severity_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 5, got 6"):
        damaged(CORRUPTIONS["blur"], scan_of("MR"), 6)


def test_amounts_grow_and_are_five() -> None:
    for corruption in CORRUPTIONS.values():
        assert len(corruption.amounts) == SEVERITIES
        assert list(corruption.amounts) == sorted(corruption.amounts)
        assert set(corruption.kinds) <= {"MR", "CT", "other"}


def test_the_documented_amounts_are_those_of_the_panel(root: Path) -> None:
    rows = [line.strip("| ").split(" | ") for line in (root / "docs" / "robustness.md").read_text().splitlines() if line.startswith("| `")]
    documented = {row[0].strip("`"): tuple(map(float, row[-5:])) for row in rows if len(row) > 5}
    assert documented == {name: corruption.amounts for name, corruption in CORRUPTIONS.items()}


def test_unknown_modalities_are_of_another_kind() -> None:
    assert [kind_of(name) for name in ("MR", "CT", "US", "")] == ["MR", "CT", "other", "other"]


def flat(value: float, shape: tuple[int, ...] = (1, 64, 64, 8)) -> np.ndarray:
    """A constant with one darker column, so that what is flat is not taken for background."""
    array = np.full(shape, value, np.float32)
    array[:, 0, ::2] = 0
    return array


def test_rician_noise_has_the_deviation_and_the_floor_of_its_distribution() -> None:
    scan = Volume(flat(100), np.eye(4), "MR")
    after = damaged(CORRUPTIONS["rician_noise"], scan, 3).array[0, 1:]
    assert after.std() == pytest.approx(10, rel=0.03)
    assert after.mean() == pytest.approx(100 + 10**2 / 200, rel=0.005)  # the mean of a Rician above its signal


def test_gaussian_noise_and_shift_of_ct_are_in_hu() -> None:
    scan = Volume(flat(40), np.eye(4), "CT")
    assert (damaged(CORRUPTIONS["gaussian_noise"], scan, 5).array - scan.array).std() == pytest.approx(110, rel=0.03)
    change = damaged(CORRUPTIONS["intensity_shift"], scan, 2).array - scan.array
    assert np.abs(change) == pytest.approx(10, abs=1e-3)


def test_a_bias_field_is_smooth_and_reaches_its_amount() -> None:
    scan = Volume(flat(100), np.eye(4), "MR")
    field = np.log(damaged(CORRUPTIONS["bias_field"], scan, 4).array[0, 1:] / 100)
    assert np.abs(field).max() == pytest.approx(0.5, abs=0.05)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.1


def test_ghosts_lie_a_whole_share_of_the_field_of_view_away() -> None:
    array = np.zeros((1, 60, 60, 1), np.float32)
    array[0, 28:32, 28:32, 0] = 100
    array += np.random.default_rng(0).uniform(0, 0.1, array.shape).astype(np.float32)  # air that was not cut out
    profile = damaged(CORRUPTIONS["ghosting"], Volume(array, np.eye(4), "MR"), 5).array[0, 30, :, 0]
    ghosts = [np.roll(profile, 60 // period)[28:32].mean() for period in range(2, 6)]
    assert max(ghosts) > 5


def test_motion_of_all_of_k_space_would_be_a_shift() -> None:
    scan = scan_of("MR")
    change = CORRUPTIONS["motion"].change
    moved = change(scan, 1.0, np.random.default_rng(3))
    angle = np.random.default_rng(3).uniform(0, 2 * np.pi)
    shift = (3 * np.cos(angle), 3 * np.sin(angle) / 1.25)
    centre = [np.average(axis, weights=part) for part in (scan.array[0, :, :, 4], moved[0, :, :, 4]) for axis in np.indices((40, 36))]
    assert np.subtract(centre[2:], centre[:2]) == pytest.approx(shift, abs=0.3)


def test_thicker_slices_are_means_with_shares_of_the_outer_ones() -> None:
    array = np.zeros((1, 4, 4, 7), np.float32)
    array[..., 3] = 12
    array[:, ::2, 0, :] += 1e-3
    scan = Volume(array, np.eye(4), "CT")
    change = CORRUPTIONS["slice_thickness"].change
    for amount, expected in ((1.5, [0, 2, 8, 2, 0]), (2.0, [0, 3, 6, 3, 0]), (3.0, [0, 4, 4, 4, 0]), (4.0, [1.5, 3, 3, 3, 1.5])):
        np.testing.assert_allclose(change(scan, amount, np.random.default_rng(0))[0, 1, 1, 1:6], expected, atol=1e-5)


def test_downsampling_by_two_is_the_mean_of_four_pixels_interpolated() -> None:
    scan = scan_of("MR")
    change = CORRUPTIONS["downsampling"].change
    after = change(scan, 2.0, np.random.default_rng(0))
    cells = scan.array.reshape(2, 20, 2, 18, 2, 8).mean(axis=(2, 4))
    np.testing.assert_allclose(
        (0.75 * cells[:, 5] + 0.25 * cells[:, 4])[:, 3] * 0.75 + 0.25 * (0.75 * cells[:, 5] + 0.25 * cells[:, 4])[:, 2],
        after[:, 10, 6],
        rtol=1e-4,
    )


def test_blur_is_measured_in_millimetres() -> None:
    array = np.zeros((1, 41, 41, 1), np.float32)
    array[0, 20, 20] = 1
    change = CORRUPTIONS["blur"].change
    spread = change(Volume(array, np.diag([0.5, 1, 1, 1]), "CT"), 1.5, np.random.default_rng(0))[0, :, :, 0]
    places = np.arange(41) - 20
    deviations = [np.sqrt(np.average(places**2, weights=spread.sum(axis=axis))) for axis in (1, 0)]
    assert deviations == pytest.approx([3.0, 1.5], rel=0.03)


def test_gamma_keeps_the_range_and_the_order_of_values() -> None:
    scan = scan_of("MR")
    after = damaged(CORRUPTIONS["gamma"], scan, 5).array
    assert (after.min(), after.max()) == pytest.approx((scan.array.min(), scan.array.max()), rel=1e-5)
    order = scan.array[0].ravel().argsort(kind="stable")
    assert (np.diff(after[0].ravel()[order]) >= -1e-3).all()


def test_contrast_of_ct_leaves_water_alone() -> None:
    scan = Volume(np.linspace(-500, 500, 64, dtype=np.float32).reshape(1, 4, 4, 4), np.eye(4), "CT")
    after = damaged(CORRUPTIONS["contrast"], scan, 3).array
    np.testing.assert_allclose(np.abs(after / scan.array - 1), 0.1, rtol=1e-4)


def test_a_few_voxels_below_air_leave_the_signal_of_tissue() -> None:
    channel = np.zeros((32, 32, 4), np.float32)
    channel[16:20] = 400
    channel[14, ::16, 0] = -50  # ringing
    assert _tissue(channel - channel.min()) == 450
