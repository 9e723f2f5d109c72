"""Threshold and least parts of masks, from validation scans."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from medssl.training.validation.voxel_point import by_threshold, voxel_point

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]


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


def slow(pairs: list[Pair], threshold: float, voxels: int, share: float) -> tuple[float, float]:
    """Mean Dice and F1 of lesions, one component after the other."""
    found, right, wrong, missed = [], 0, 0, 0
    for probability, truth in pairs:
        parts, lesions = separate(probability >= threshold), separate(truth)
        largest = max(part.sum() for part in parts)
        parts = [part for part in parts if part.sum() >= voxels and part.sum() >= share * largest]
        kept = np.any(parts, axis=0)
        found.append(2 * (kept & truth).sum() / (kept.sum() + truth.sum()))
        touched = sum((lesion & kept).any() for lesion in lesions)
        right, missed = right + touched, missed + len(lesions) - touched
        wrong += sum(not (part & truth).any() for part in parts)
    return float(np.mean(found)), 2 * right / (2 * right + wrong + missed)


def point_of(pairs: list[Pair], *, whole: bool = False) -> dict[str, object]:
    point = voxel_point([by_threshold(*pair) for pair in pairs], chosen_on="validation", whole=whole)
    assert point is not None
    return point


def separate(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    numbered, count = label(mask, np.ones((3, 3, 3)))
    return [numbered == number for number in range(1, count + 1)]


def test_false_parts_are_left_out_and_lesions_stay() -> None:
    point = point_of([pair(false=0.95), pair(false=0.9)])
    assert (point["dice"], point["n"], point["chosen_on"]) == (1.0, 2, "validation")
    assert point["lesions_touched"] == point["lesions_touched_by_any_part"] == 4


def test_nothing_is_left_out_where_that_is_as_good() -> None:
    point = point_of([pair(false=0.05)])
    assert (point["min_voxels"], point["min_share"]) == (1, 0.0)


def test_the_choice_is_that_of_a_slow_search() -> None:
    generator = np.random.default_rng(0)
    pairs = []
    for probability, truth in (pair(false=0.5), pair(false=0.7)):
        noisy = np.clip(probability + generator.normal(0, 0.25, probability.shape), 0, 1)
        pairs.append((noisy.astype(np.float32), truth))
    point = point_of(pairs)
    best = 0.0
    for threshold in np.round(np.arange(0.2, 0.85, 0.05), 2):
        _, least_f1 = slow(pairs, threshold, 1, 0.0)
        found = [slow(pairs, threshold, voxels, share) for voxels in (1, 5, 10, 20, 40, 80) for share in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)]
        best = max(best, *(dice for dice, f1 in found if f1 >= least_f1))
    chosen = [float(str(point[name])) for name in ("threshold", "min_voxels", "min_share")]
    assert point["dice"] == pytest.approx(best) == pytest.approx(slow(pairs, chosen[0], int(chosen[1]), chosen[2])[0])


def test_lesions_that_the_rule_loses_are_counted() -> None:
    probability, truth = pair(false=0.95)
    blob(probability, (1, 8, 14), 4, 0.95)  # false parts as large as the smaller lesion: leaving all out gives the higher Dice
    blob(probability, (14, 1, 1), 4, 0.95)
    point = point_of([(probability, truth)])
    assert (point["lesions_touched"], point["lesions_touched_by_any_part"]) == (1, 2)


def large(*others: tuple[tuple[int, int, int], int, bool]) -> Pair:
    """A lesion of 1,000 voxels, 64 of them not found, and other parts: corner, edge, and whether they are lesion."""
    truth, probability = np.zeros((30, 20, 20)), np.full((30, 20, 20), 0.05)
    for corner, edge, true in (((1, 1, 1), 10, True), *others):
        blob(probability, corner, edge, 0.9)
        blob(truth, corner, edge, float(true))
    blob(probability, (1, 4, 4), 4, 0.05)
    return probability.astype(np.float32), truth > 0


def test_small_lesions_are_not_given_up_for_false_parts_as_small() -> None:
    both = large(((15, 1, 1), 3, True), ((15, 10, 10), 3, False), ((24, 10, 10), 3, False))
    one = large(((15, 1, 1), 3, True), ((15, 10, 10), 3, False))
    assert slow([both, one], 0.5, 40, 0.0)[0] > slow([both, one], 0.5, 1, 0.0)[0]  # Dice alone would give them up
    point = point_of([both, one])
    assert point["lesions_touched"] == point["lesions_touched_by_any_part"] == 4


def test_where_classes_are_named_no_part_is_measured_by_the_largest() -> None:
    scans = [large(((15, 10, 10), 5, False))]  # 125 voxels, more than any least size
    alone, several = point_of(scans), point_of(scans, whole=True)
    assert float(str(alone["min_share"])) > 0
    assert several["min_share"] == 0.0


def test_without_a_lesion_there_is_no_point() -> None:
    assert voxel_point([], chosen_on="validation") is None
