"""Thousands of AUROCs, sensitivities and specificities of resampled patients: units are ranked once, and a draw only weighs them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.intervals import DRAWS, SEED, Floats, index_patients, patient_weights

_WIDTH = 128  # draws at a time: what they touch stays in the cache of a core


class RankedPairs:
    """Every positive against every negative, weighed by patient.

    Args:
        labels: (N,) 1 positive, 0 negative; both are there.
        scores: (N,) finite.
        index: (N,) patient of each unit, 0 .. P-1.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, index: NDArray[np.intp]) -> None:
        label, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
        order = np.argsort(score[~label], kind="stable")
        ranked = score[~label][order]
        self.positives, self.negatives = index[label], index[~label][order]
        self.below, self.up_to = (np.searchsorted(ranked, score[label], side) for side in ("left", "right"))

    def areas(self, weights: Floats) -> Floats:
        """(B,) AUROC, ties as 1/2, when patients count as often as (B, P) says; NaN for a draw without both classes."""
        parts = [self._areas(weights[start : start + _WIDTH]) for start in range(0, len(weights), _WIDTH)]
        return np.concatenate(parts)

    def _areas(self, weights: Floats) -> Floats:
        # Counts are whole numbers, so single precision holds them exactly up to 2 ** 24 and halves the memory.
        drawn = np.ascontiguousarray(weights.T, dtype=np.float32)
        cumulated = np.zeros((len(self.negatives) + 1, drawn.shape[1]), dtype=np.float32)
        np.cumsum(drawn[self.negatives], axis=0, out=cumulated[1:])
        positives = drawn[self.positives]
        won = (positives * (cumulated[self.below] + cumulated[self.up_to])).sum(axis=0, dtype=np.float64) / 2
        pairs = positives.sum(axis=0, dtype=np.float64) * cumulated[-1]
        return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def area_samples(labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """(draws,) AUROC when whole patients are drawn; the same patients and seed are the same draws."""
    index, count = index_patients(patients)
    ranked = RankedPairs(labels, scores, index)
    return np.concatenate([ranked.areas(block) for block in patient_weights(count, draws=draws, seed=seed)])


def resample(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, threshold: float, draws: int = DRAWS, seed: int = SEED
) -> dict[str, Floats]:
    """(draws,) `auroc`, `sensitivity` and `specificity` when whole patients are drawn; NaN where a draw has not the classes it needs.

    Args:
        labels: (N,) 1 positive, 0 negative; both are there.
        scores: (N,) finite.
        patients: (N,) whom each unit belongs to.
        threshold: Positive means score >= threshold.
        draws: How many.
        seed: Of the draws.
    """
    truth, called = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float) >= threshold
    index, count = index_patients(patients)
    ranked = RankedPairs(truth, scores, index)
    cells = np.stack([np.bincount(index[part], minlength=count) for part in (truth & called, truth, ~truth & ~called, ~truth)], axis=1)
    areas, sums = [], []
    for block in patient_weights(count, draws=draws, seed=seed):
        areas.append(ranked.areas(block))
        sums.append(block @ cells)
    hits, positives, cleared, negatives = np.concatenate(sums).T
    return {"auroc": np.concatenate(areas), "sensitivity": _share(hits, positives), "specificity": _share(cleared, negatives)}


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
