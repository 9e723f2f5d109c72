"""Two models on the same units: paired DeLong, McNemar, the bootstrap of a difference over patients, and Holm over all tests.

Where DeLong's variance is not to be believed (fewer than 10 units of a class, or a model that separates the classes) the test is one of
permutations, in which every patient's ranks change hands between the models: Bandos, Rockette and Gur, 2005,
https://doi.org/10.1002/sim.2149. It has a p, exact but for the drawing, and no interval.

DeLong, DeLong and Clarke-Pearson, 1988, https://doi.org/10.2307/2531595; McNemar, 1947, https://doi.org/10.1007/BF02295996, exact by the
binomial; interval of a paired difference of shares: Newcombe, 1998, Statistics in Medicine 17, 2635, method 10; Holm, 1979,
https://www.jstor.org/stable/4615733; Benjamini and Hochberg, 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x.

Every difference is first minus second. A test that cannot be made has no p, and says why.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.classification import Units, placements
from medssl.evaluation.few import FEW, no_interval
from medssl.evaluation.intervals import BOOTSTRAP, DRAWS, SEED, Floats, index_patients, patient_weights, wilson
from medssl.evaluation.metric import Interval, Metric, unmeasured
from medssl.evaluation.resampling import RankedPairs

DELONG = "paired DeLong"
PERMUTED = f"permutation of the ranks of patients ({DRAWS} draws)"
NEWCOMBE = "Newcombe, paired (method 10)"
INVERTED = "p is twice the share of draws beyond 0"
_Z95 = 1.959963984540054
_PERFECT = "no interval: one model separates the classes, and DeLong would take its variance as 0"
_NO_SPREAD = 1e-12
_ELEMENTS = 500_000  # of a block of permutations


@dataclass(frozen=True, eq=False)
class Pairs:
    """Units that two models scored; those without two finite scores are left out.

    Args:
        first: Labels and scores of the first model.
        second: The same units with the scores of the second.
    """

    first: Units
    second: Units

    @classmethod
    def of(cls, unit: str, *, labels: ArrayLike, first: ArrayLike, second: ArrayLike, patients: ArrayLike) -> "Pairs":
        """Pairs of arrays of one length (N,)."""
        scores = [np.asarray(column, dtype=float) for column in (first, second)]
        both = np.isfinite(scores[0]) & np.isfinite(scores[1])
        one, other = (Units.of(unit, labels=labels, scores=np.where(both, column, np.nan), patients=patients) for column in scores)
        return cls(one, other)


@dataclass(frozen=True)
class McNemar:
    """The test that two models are right equally often, from the units where only one of them is.

    Args:
        only_first: Units that only the first has right.
        only_second: Units that only the second has right.
        exact_p: Two-sided binomial.
        chi2: (b - c)^2 / (b + c), None where the two never differ.
        chi2_p: Of the plain statistic.
        corrected_chi2: (|b - c| - 1)^2 / (b + c), Edwards' correction.
        corrected_p: Of the corrected statistic.
    """

    only_first: int
    only_second: int
    exact_p: float
    chi2: float | None
    chi2_p: float | None
    corrected_chi2: float | None
    corrected_p: float | None


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test of the two discordant counts; `exact_p` is the one to report, the others are approximations."""
    from scipy.stats import binomtest

    b, c = only_first, only_second
    if b + c == 0:
        return McNemar(b, c, 1.0, None, None, None, None)
    plain, corrected = (b - c) ** 2 / (b + c), max(0, abs(b - c) - 1) ** 2 / (b + c)
    p_values = [math.erfc(math.sqrt(statistic / 2)) for statistic in (plain, corrected)]  # chi2 of one degree of freedom
    return McNemar(b, c, float(binomtest(min(b, c), b + c).pvalue), plain, p_values[0], corrected, p_values[1])


def holm(p_values: ArrayLike) -> Floats:
    """(M,) p values adjusted for M tests by Holm's step-down rule: the chance of any false claim stays below the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """(M,) p values adjusted by the step-up rule that holds the false discovery rate."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)))
    return adjusted


def area_covariance(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """(2,) AUROCs and (2, 2) DeLong covariance of two scores of the same units; two of each class are needed."""
    parts = [placements(labels, scores) for scores in (first, second)]
    covariance = sum(np.cov(np.stack(side)) / len(side[0]) for side in zip(*parts, strict=True))
    return np.array([by_positive.mean() for by_positive, _ in parts]), np.asarray(covariance)


def paired_delong(pairs: Pairs) -> Metric:
    """Difference of two AUROCs of independent units, first minus second, with DeLong's interval and `p`; of few a permuted `p` alone."""
    units = pairs.first
    n, smaller = len(units.labels), min(units.n_positive, units.n_negative)
    if units.missing:
        return _untested(units.missing, DELONG, n)
    areas = _areas(pairs)
    if smaller < FEW or not 0 < min(areas) <= max(areas) < 1:
        return _permuted(pairs, areas, why=f"no interval: of one class there are only {smaller}" if smaller < FEW else _PERFECT)
    _, covariance = area_covariance(units.labels, units.scores, pairs.second.scores)
    value, beside = areas[0] - areas[1], _sides(*areas)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance < _NO_SPREAD:
        return _no_test(value, beside, DELONG, units, "no test: DeLong's variance of the difference is 0")
    z = value / math.sqrt(variance)
    ends = (max(-1.0, value - _Z95 * math.sqrt(variance)), min(1.0, value + _Z95 * math.sqrt(variance)))
    return Metric(value, ends, DELONG, units.n_positive, n, "", beside | {"z": z, "p": math.erfc(abs(z) / math.sqrt(2)), "test": DELONG})


def _permuted(pairs: Pairs, areas: tuple[float, float], *, why: str) -> Metric:
    """The difference with the share of permutations in which it is as large or larger, and why it has no interval."""
    units, value = pairs.first, areas[0] - areas[1]
    drawn = np.concatenate(list(_permutations(pairs)))
    if np.abs(drawn).max() < _NO_SPREAD:
        return _no_test(value, _sides(*areas), "none", units, "no test: the two rank alike, or no unit above another")
    p = (1 + int((np.abs(drawn) >= abs(value) - _NO_SPREAD).sum())) / (len(drawn) + 1)
    return Metric(value, None, "none", units.n_positive, len(units.labels), why, _sides(*areas) | {"p": p, "test": PERMUTED})


def _permutations(pairs: Pairs) -> Iterator[Floats]:
    """(B,) differences of the two AUROCs when the ranks of each patient may change hands, in blocks that stay small in memory."""
    from scipy.stats import rankdata

    index, patients = index_patients(pairs.first.patients)
    ranks = [rankdata(side.scores) for side in (pairs.first, pairs.second)]
    truth, generator = pairs.first.labels.astype(bool), np.random.default_rng(SEED)
    size = max(1, _ELEMENTS // len(index))
    for start in range(0, DRAWS, size):
        changed = generator.integers(0, 2, (min(size, DRAWS - start), patients), dtype=bool)[:, index]
        yield np.subtract(*(_area_of_rows(np.where(changed, one, other), truth) for one, other in (ranks[::-1], ranks)))


def _area_of_rows(scores: Floats, truth: NDArray[np.bool_]) -> Floats:
    """(B,) AUROC of each row of scores (B, N), ties as 1/2, from the sum of the ranks of the positives."""
    from scipy.stats import rankdata

    m, n = int(truth.sum()), int((~truth).sum())
    return np.asarray((rankdata(scores, axis=1)[:, truth].sum(axis=1) - m * (m + 1) / 2) / (m * n))


def paired_shares(first: ArrayLike, second: ArrayLike, *, empty: str) -> Metric:
    """Difference of the shares that two models have right, of independent units, with Newcombe's interval and McNemar's exact `p`.

    Args:
        first: (N,) whether the first model is right.
        second: (N,) whether the second is.
        empty: What is missing when there is no unit.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    n = len(a)
    if n == 0:
        return _untested(empty, NEWCOMBE, 0)
    test = mcnemar(int((a & ~b).sum()), int((~a & b).sum()))
    counts = {"only_first_right": test.only_first, "only_second_right": test.only_second}
    p_values = {"p": test.exact_p, "test": "McNemar, exact", "p_plain": test.chi2_p, "p_corrected": test.corrected_p}
    beside = _sides(float(a.mean()), float(b.mean())) | counts | p_values
    note = "no unit is told apart by the two" if test.only_first + test.only_second == 0 else ""
    return Metric(float(a.mean() - b.mean()), _newcombe_paired(a, b), NEWCOMBE, int(a.sum()), n, note, beside)


def _newcombe_paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    n, a, b = len(first), int(first.sum()), int(second.sum())
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = a - both, b - both
    (low_a, high_a), (low_b, high_b) = wilson(a, n), wilson(b, n)
    margins = a * (n - a) * b * (n - b)
    excess = float(both * neither - only_first * only_second)
    excess = max(0.0, excess - n / 2) if excess > 0 else excess  # correction for continuity
    phi = excess / math.sqrt(margins) if margins else 0.0
    p_a, p_b = a / n, b / n
    down = (p_a - low_a) ** 2 - 2 * phi * (p_a - low_a) * (high_b - p_b) + (high_b - p_b) ** 2
    up = (p_b - low_b) ** 2 - 2 * phi * (p_b - low_b) * (high_a - p_a) + (high_a - p_a) ** 2
    return p_a - p_b - math.sqrt(max(0.0, down)), p_a - p_b + math.sqrt(max(0.0, up))


def area_difference(pairs: Pairs) -> Metric:
    """Difference of two AUROCs when whole patients are drawn, with the percentile interval and a `p` by inversion."""
    units = pairs.first
    if units.missing:
        return _untested(units.missing, BOOTSTRAP, len(units.labels))
    index, count = index_patients(units.patients)
    ranked = [RankedPairs(side.labels, side.scores, index) for side in (pairs.first, pairs.second)]
    samples = np.concatenate([ranked[0].areas(block) - ranked[1].areas(block) for block in patient_weights(count)])
    areas = _areas(pairs)
    holders = min(len(np.unique(index[units.labels == label])) for label in (0, 1))
    drawn = _Drawn(samples[np.isfinite(samples)], holders)
    return drawn.metric(float(areas[0] - areas[1]), _sides(*areas), k=units.n_positive, n=len(units.labels))


def clustered_difference(first: ArrayLike, second: ArrayLike, among: ArrayLike, *, patients: ArrayLike, empty: str) -> Metric:
    """Difference of sum(first) / sum(among) and sum(second) / sum(among) when whole patients are drawn, with a `p` by inversion.

    With ones for `among` it is the difference of two means, such as of Dice; with hits and lesions that of two lesion sensitivities.

    Args:
        first: (N,) of the first model.
        second: (N,) of the second.
        among: (N,) what both are shares of.
        patients: (N,) whose.
        empty: What is missing when `among` is 0 everywhere.
    """
    index, count = index_patients(patients)
    a, b, whole = (np.bincount(index, weights=np.asarray(part, dtype=float), minlength=count) for part in (first, second, among))
    if whole.sum() == 0:
        return _untested(empty, BOOTSTRAP, 0)
    held = whole > 0
    blocks = patient_weights(int(held.sum()))
    samples = np.concatenate([_ratio(block @ (a - b)[held], block @ whole[held]) for block in blocks])
    shares = float(a.sum() / whole.sum()), float(b.sum() / whole.sum())
    return _Drawn(samples, int(held.sum())).metric(shares[0] - shares[1], _sides(*shares), k=int(held.sum()), n=round(float(whole.sum())))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Differences over draws of so many patients."""

    samples: Floats
    patients: int

    def metric(self, value: float, beside: dict[str, object], *, k: int, n: int) -> Metric:
        facts = beside | {"n_patients": self.patients}
        if self.patients < FEW or self.samples.size == 0 or np.ptp(self.samples) < _NO_SPREAD:
            few = f"{no_interval(self.patients)}, and no test" if self.patients < FEW else ""
            why = few or "no interval and no test: every draw gives the same difference"
            return Metric(value, None, "none", k, n, why, facts | {"p": None, "test": "none"})
        low, high = np.percentile(self.samples, (2.5, 97.5))
        aside = min(int((self.samples <= 0).sum()), int((self.samples >= 0).sum()))
        p = min(1.0, 2 * (1 + aside) / (len(self.samples) + 1))
        return Metric(value, (float(low), float(high)), BOOTSTRAP, k, n, "", facts | {"p": p, "test": f"bootstrap, {INVERTED}"})


def _areas(pairs: Pairs) -> tuple[float, float]:
    first, second = (float(placements(side.labels, side.scores)[0].mean()) for side in (pairs.first, pairs.second))
    return first, second


def _sides(first: float, second: float) -> dict[str, object]:
    return {"first": float(first), "second": float(second)}


def _untested(why: str, method: str, n: int) -> Metric:
    gone = unmeasured(why, method=method, n=n)
    return Metric(None, None, method, 0, n, gone.note, {"first": None, "second": None, "p": None, "test": "none"})


def _no_test(value: float, beside: dict[str, object], method: str, units: Units, why: str) -> Metric:
    return Metric(value, None, method, units.n_positive, len(units.labels), why, beside | {"p": None, "test": "none"})


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
