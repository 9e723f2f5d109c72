"""How good features are without fine-tuning: spread, rank, alignment, uniformity, neighbours and a linear probe. Arrays in, numbers out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.errors import UsageError
from medssl.evaluation.classification import delong

Floats = NDArray[np.float64]

_SMALL = 1e-12


@dataclass(frozen=True)
class Answers:
    """How well held-out answers are told.

    Args:
        accuracy: Share of right answers at a score of one half, 0 to 1.
        auroc: Area under the curve, 0 to 1; NaN where only one class is there.
        n: Samples.
    """

    accuracy: float
    auroc: float
    n: int


def effective_rank(features: ArrayLike) -> float:
    """The exponential of the entropy of the singular values of centred features; 1 to min(N - 1, D), 0 for constant ones.

    Roy & Vetterli, "The effective rank", 2007; of features as RankMe (Garrido et al., 2023, https://arxiv.org/abs/2210.02885), but centred
    first, since a common offset is no spread.

    Args:
        features: (N, D).
    """
    table = np.asarray(features, dtype=np.float64)
    centred = table - table.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    if values[0] <= 1e-9 * max(1.0, float(np.abs(table).max())):
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > _SMALL]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def spread(features: ArrayLike) -> Floats:
    """(D,) standard deviation of each dimension in units of the root mean square length of a feature over sqrt(D).

    A feature whose dimensions have zero mean and equal deviation gives 1 everywhere; constant features give 0. Chen & He, "SimSiam", 2021,
    section 4.1, https://arxiv.org/abs/2011.10566, whose 1 / sqrt(D) is 1 here.

    Args:
        features: (N, D).
    """
    table = np.asarray(features, dtype=np.float64)
    length = np.sqrt((table**2).sum(axis=1).mean() / table.shape[1])
    deviation: Floats = table.std(axis=0)
    return deviation / max(float(length), _SMALL)


def alignment(first: ArrayLike, second: ArrayLike) -> float:
    """Mean squared distance of unit features (N, D) of two views of the same crops; 0 is best, 2 is no relation.

    Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity", 2020, section 4.1,
    https://arxiv.org/abs/2005.10242.
    """
    return float(((_unit(first) - _unit(second)) ** 2).sum(axis=1).mean())


def uniformity(features: ArrayLike, *, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential exp(-t d^2) over pairs of unit features (N, D); 0 is collapse, lower is better.

    Wang & Isola, 2020, section 4.1.
    """
    unit = _unit(features)
    squared = np.clip(2 - 2 * unit @ unit.T, 0, None)[np.triu_indices(len(unit), k=1)]
    return float(np.log(np.exp(-t * squared).mean()))


def neighbours(features: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, k: int = 10) -> Answers:
    """The share of positives among the k most similar features (cosine) of other patients.

    Args:
        features: (N, D).
        labels: (N,) 0 or 1.
        patients: (N,) a patient never helps to answer for itself.
        k: Neighbours, fewer where other patients have fewer.

    Raises:
        UsageError: One patient alone.
    """
    unit, truth, who = _unit(features), np.asarray(labels, dtype=np.intp), np.asarray(patients)
    _check_patients(who)
    likeness = np.where(who[:, None] == who[None], -np.inf, unit @ unit.T)
    scores = np.empty(len(unit))
    for row, (like, one) in enumerate(zip(likeness, who, strict=True)):
        nearest = np.argsort(-like, kind="stable")[: min(k, int((who != one).sum()))]
        scores[row] = truth[nearest].mean()
    return _answers(truth, scores)


def linear_probe(features: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, folds: int = 5, penalty: float = 1.0) -> Answers:
    """How well `probe_scores` tell the label; the arguments are the same."""
    scores = probe_scores(features, labels, patients, folds=folds, penalty=penalty)
    return _answers(np.asarray(labels, dtype=np.intp), scores)


def probe_scores(features: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, folds: int = 5, penalty: float = 1.0) -> Floats:
    """(N,) ridge regression of the label on standardised features, each patient answered by a fit without it.

    Args:
        features: (N, D).
        labels: (N,) 0 or 1.
        patients: (N,) folds hold whole patients.
        folds: At most; fewer where there are fewer patients.
        penalty: Weight of the squared coefficients as a share of the samples of a fit.

    Raises:
        UsageError: One patient alone.
    """
    table, truth = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    names, who = np.unique(np.asarray(patients), return_inverse=True)
    _check_patients(who)
    scores, fold_of = np.empty(len(table)), who % min(folds, len(names))
    for fold in np.unique(fold_of):
        held = fold_of == fold
        scores[held] = _ridge(table[~held], truth[~held].astype(np.float64), table[held], penalty)
    return scores


def _ridge(table: Floats, target: Floats, asked: Floats, penalty: float) -> Floats:
    """Predictions of a ridge regression with an offset that is not penalised, in closed form."""
    middle, scale = table.mean(axis=0), table.std(axis=0) + 1e-6
    inputs, queries = (table - middle) / scale, (asked - middle) / scale
    kernel = inputs @ inputs.T + penalty * len(inputs) * np.eye(len(inputs))  # dual form: fewer crops than dimensions
    predictions: Floats = queries @ inputs.T @ np.linalg.solve(kernel, target - target.mean()) + target.mean()
    return predictions


def _answers(truth: NDArray[np.intp], scores: Floats) -> Answers:
    both = 0 < truth.sum() < len(truth)
    return Answers(float(((scores >= 0.5) == truth).mean()), delong(truth, scores)[0] if both else float("nan"), len(truth))


def _check_patients(patients: NDArray[np.generic]) -> None:
    if len(np.unique(patients)) < 2:
        raise UsageError("neighbours and probes need two patients or more, so that none answers for itself")


def _unit(features: ArrayLike) -> Floats:
    table = np.asarray(features, dtype=np.float64)
    unit: Floats = table / np.clip(np.linalg.norm(table, axis=1, keepdims=True), _SMALL, None)
    return unit
