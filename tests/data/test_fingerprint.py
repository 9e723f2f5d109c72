"""The same picture is known again, another one is not."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medssl.data.fingerprint import alike, fingerprint
from medssl.volume import Volume


def scan(seed: int, shape: tuple[int, ...] = (48, 56, 20)) -> np.ndarray:
    """A bright head in a dark frame, with details of its own."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    head = gaussian_filter((sum(axis**2 for axis in axes[:2]) < 0.6).astype(float), 1)
    detail = gaussian_filter(generator.normal(size=shape), (4, 4, 2))
    return (100 * head * (1 + 2 * detail / detail.std() * 0.3) + generator.normal(0, 1, shape)).astype(np.float32)


def signs(array: np.ndarray) -> np.ndarray:
    return fingerprint(Volume(array[None], np.eye(4)))


def found(array: np.ndarray, other: np.ndarray) -> str | None:
    """How two scans are alike: empty for as they are, an axis for mirrored, None for not at all."""
    pairs = list(alike(signs(array)[None], signs(other)[None, :, 0]))
    return pairs[0].mirrored if pairs else None


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: a + np.random.default_rng(9).normal(0, 5, a.shape).astype(np.float32),
        lambda a: a * 2.7 + 100,
        lambda a: np.roll(a, 1, axis=0),
        lambda a: np.roll(a, (1, 1), axis=(0, 1)),
        lambda a: zoom(a, (0.8, 0.8, 1), order=1),
        lambda a: np.rint(a).astype(np.int16),
    ],
    ids=["same", "noise", "rescaled", "shifted", "shifted twice", "resampled", "rounded"],
)
def test_a_scan_that_was_saved_again_is_known(change) -> None:
    assert found(scan(1), change(scan(1))) == ""


@pytest.mark.parametrize(("axis", "name"), [(0, "I"), (1, "J"), (2, "K")])
def test_a_mirrored_copy_is_known_and_named(axis: int, name: str) -> None:
    assert found(scan(1), np.flip(scan(1), axis)) == name


def test_scans_of_two_patients_are_not_alike() -> None:
    assert list(alike(np.stack([signs(scan(seed)) for seed in range(12)]))) == []


def test_a_flat_picture_is_known_among_others() -> None:
    pictures = [scan(seed, (64, 80, 1)) for seed in range(6)]
    every = np.stack([signs(picture) for picture in [*pictures, pictures[2] + 3]])
    assert {tuple(sorted((pair.first, pair.second))) for pair in alike(every)} == {(2, 6)}


def test_the_correlation_is_that_of_the_pictures() -> None:
    first, second = scan(1), scan(1) + 0.4 * scan(2)
    (pair,) = alike(signs(first)[None], signs(second)[None, :, 0], threshold=0.9)
    assert pair.correlation == pytest.approx(0.95, abs=0.05)


def test_voxels_that_are_no_numbers_do_not_spread() -> None:
    broken = scan(1)
    broken[3, 3, 3], broken[4, 4, 4] = np.nan, np.inf
    assert found(scan(1), broken) == ""


def test_the_first_words_never_change() -> None:
    """A bundle of today is compared with scans of next year."""
    ramp = np.arange(16 * 16 * 8, dtype=np.float32).reshape(16, 16, 8) ** 1.5
    assert hex(int(signs(ramp)[0, 0, 0])) == "0x38a11263ef93f4fa"


def test_a_sequence_that_is_absent_does_not_hide_the_others() -> None:
    one, other = (np.stack([np.zeros_like(scan(seed)), scan(seed)]) for seed in (1, 2))
    known = np.stack([fingerprint(Volume(array, np.eye(4))) for array in (one, one[1:], other)])
    assert {tuple(sorted((pair.first, pair.second))) for pair in alike(known)} == {(0, 1)}
