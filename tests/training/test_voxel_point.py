"""Threshold and least parts of masks, from validation scans."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from medssl.training.voxel_point import Pair, voxel_point


def blob(array: NDArray[np.floating], corner: tuple[int, int, int], edge: int, value: float) -> None:
    array[tuple(slice(start, start + edge) for start in corner)] = value


def pair(*, false: float) -> Pair:
    """A lesion of 216 voxels found at 0.9, one of 64 at 0.9, and a false part of 8 voxels at `false`."""
    truth, probability = np.zeros((20, 20, 20)), np.full((20, 20, 20), 0.05)
    for corner, edge in (((1, 1, 1), 6), ((12, 12, 12), 4)):
        blob(truth, corner, edge, 1)
        blob(probability, corner, edge, 0.9)
    blob(probability, (1, 15, 1), 2, false)
    return probability.astype(np.float32), truth > 0


def slow(pairs: list[Pair], threshold: float, voxels: int, share: float) -> float:
    """Mean Dice, one component after the other."""
    found = []
    for probability, truth in pairs:
        numbered, count = label(probability >= threshold, np.ones((3, 3, 3)))
        parts = [numbered == number for number in range(1, count + 1)]
        largest = max(part.sum() for part in parts)
        kept = np.any([part for part in parts if part.sum() >= voxels and part.sum() >= share * largest], axis=0)
        found.append(2 * (kept & truth).sum() / (kept.sum() + truth.sum()))
    return float(np.mean(found))


def test_false_parts_are_left_out_and_lesions_stay() -> None:
    point = voxel_point([pair(false=0.95), pair(false=0.9)], chosen_on="validation")
    assert point is not None
    assert (point["dice"], point["n"], point["chosen_on"]) == (1.0, 2, "validation")
    assert point["lesions_touched"] == point["lesions_touched_by_any_part"] == 4


def test_nothing_is_left_out_where_that_is_as_good() -> None:
    point = voxel_point([pair(false=0.05)], chosen_on="validation")
    assert point is not None
    assert (point["min_voxels"], point["min_share"]) == (1, 0.0)


def test_the_choice_is_that_of_a_slow_search() -> None:
    generator = np.random.default_rng(0)
    pairs = []
    for probability, truth in (pair(false=0.5), pair(false=0.7)):
        noisy = np.clip(probability + generator.normal(0, 0.25, probability.shape), 0, 1)
        pairs.append((noisy.astype(np.float32), truth))
    point = voxel_point(pairs, chosen_on="validation")
    assert point is not None
    best = max(
        slow(pairs, threshold, voxels, share)
        for threshold in np.round(np.arange(0.2, 0.85, 0.05), 2)
        for voxels in (1, 5, 10, 20, 40, 80)
        for share in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
    )
    chosen = [float(str(point[name])) for name in ("threshold", "min_voxels", "min_share")]
    assert point["dice"] == pytest.approx(best) == pytest.approx(slow(pairs, chosen[0], int(chosen[1]), chosen[2]))


def test_lesions_that_the_rule_loses_are_counted() -> None:
    probability, truth = pair(false=0.95)
    blob(probability, (1, 8, 14), 4, 0.95)  # false parts as large as the smaller lesion: leaving all out gives the higher Dice
    blob(probability, (14, 1, 1), 4, 0.95)
    point = voxel_point([(probability, truth)], chosen_on="validation")
    assert point is not None
    assert (point["lesions_touched"], point["lesions_touched_by_any_part"]) == (1, 2)


def test_without_a_lesion_there_is_no_point() -> None:
    assert voxel_point([], chosen_on="validation") is None
