"""Confidence intervals of proportions, and the bootstrap over patients.

Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953; Clopper and Pearson, 1934, https://doi.org/10.1093/biomet/26.4.404;
Agresti and Coull, 1998, https://doi.org/10.2307/2685469; Jeffreys as in Brown, Cai and DasGupta, 2001, https://doi.org/10.1214/ss/1009213286;
the bootstrap draws whole patients (percentile, 2,000 draws), because slices and lesions of one patient are not independent. It gives no
interval of fewer than 10 patients, which would be too narrow; a mean of so few has Student's.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.evaluation.few import FEW, no_interval
from medssl.evaluation.metric import Interval, Metric, unmeasured

Floats = NDArray[np.float64]

DRAWS = 2000
SEED = 0  # one at which an end of the reference table that lies between two possible values falls on its side
BOOTSTRAP = f"bootstrap of patients (percentile, {DRAWS} draws)"
_Z95 = 1.959963984540054
_CHUNK_ELEMENTS = 1_000_000  # a block of draws stays near the cache of a core


def wilson(k: float, n: float, *, z: float = _Z95) -> Interval:
    """Wilson score interval of k of n; (0, 1) when n is 0, because then nothing is known.

    Args:
        k: Successes, 0 to n; a fraction is allowed for effective sample sizes.
        n: Trials.
        z: Normal quantile, 1.96 for 95 %.
    """
    if n <= 0:
        return 0.0, 1.0
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    low = 0.0 if k <= 0 else max(0.0, centre - half)
    high = 1.0 if k >= n else min(1.0, centre + half)
    return low, high


def clopper_pearson(k: int, n: int) -> Interval:
    """Exact 95 % interval of k of n; (0, 1) when n is 0."""
    from scipy.stats import beta

    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return low, high


def agresti_coull(k: int, n: int) -> Interval:
    """Adjusted Wald interval of k of n, held within 0 and 1; (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    size = n + _Z95**2
    share = (k + _Z95**2 / 2) / size
    half = _Z95 * math.sqrt(share * (1 - share) / size)
    return max(0.0, share - half), min(1.0, share + half)


def jeffreys(k: int, n: int) -> Interval:
    """Equal-tailed interval of k of n from the prior Beta(1/2, 1/2); its ends are never exactly 0 or 1."""
    from scipy.stats import beta

    return float(beta.ppf(0.025, k + 0.5, n - k + 0.5)), float(beta.ppf(0.975, k + 0.5, n - k + 0.5))


def ratio_error(hits: ArrayLike, trials: ArrayLike) -> float:
    """Standard error of sum(hits) / sum(trials) over patients by the ratio estimator; NaN with fewer than two patients or no trial.

    Rao and Scott, 1992, https://doi.org/10.2307/2532311; Obuchowski, 1998, Statistics in Medicine 17, 1495.
    """
    hit, trial = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    patients = len(hit)
    if patients < 2 or trial.sum() == 0:
        return math.nan
    rest = hit - hit.sum() / trial.sum() * trial
    return math.sqrt(patients / (patients - 1) * float((rest**2).sum())) / float(trial.sum())


def proportion(k: int, n: int, *, empty: str) -> Metric:
    """A share, k of n, with its Wilson interval, and Clopper-Pearson beside it.

    Args:
        k: Successes.
        n: Trials.
        empty: What is missing when n is 0, such as `no negative scan`.
    """
    if n == 0:
        return unmeasured(empty, method="Wilson")
    return Metric(k / n, wilson(k, n), "Wilson", k, n, beside={"clopper_pearson95": list(clopper_pearson(k, n))})


def clustered_proportion(hits: ArrayLike, trials: ArrayLike, *, empty: str, draws: int = DRAWS) -> Metric:
    """Pooled proportion of units that lie within patients, with the bootstrap over patients; of few with one unit each, Wilson's interval.

    Args:
        hits: (P,) successes of each patient.
        trials: (P,) trials of each patient.
        empty: What is missing when there is no trial at all.
        draws: Bootstrap samples.
    """
    hit, trial = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    k, n = round(float(hit.sum())), round(float(trial.sum()))
    if n == 0:
        return unmeasured(empty, method=BOOTSTRAP)
    patients = int((trial > 0).sum())
    if patients < FEW:
        alone = trial.max() <= 1
        interval, method, note = (wilson(k, n), "Wilson", "") if alone else (None, "none", no_interval(patients))
        return Metric(k / n, interval, method, k, n, note, {"n_patients": patients})
    low_high, method, note = ratio_interval(hit, trial, patients=patients, draws=draws)
    beside = {"wilson95": list(wilson(min(k, n), n)), "n_patients": patients}
    return Metric(k / n, low_high, method, k, n, note, beside)


def ratio_interval(numerator: Floats, denominator: Floats, *, patients: int, draws: int = DRAWS) -> tuple[Interval | None, str, str]:
    """Interval, method and note of sum(numerator) / sum(denominator), values 0 to 1, over patients."""
    value = float(numerator.sum() / denominator.sum())
    samples = np.concatenate([_ratio(block @ numerator, block @ denominator) for block in patient_weights(len(numerator), draws=draws)])
    return bootstrap_interval(samples, value=value, patients=patients)


def bootstrap_interval(samples: Floats, *, value: float, patients: int) -> tuple[Interval | None, str, str]:
    """Percentiles of bootstrap samples; none of few patients, and a share of patients where the samples do not spread.

    A bootstrap of values that are all alike has no width, which would claim certainty; Wilson over the number of patients does not.
    """
    if patients < FEW:
        return None, "none", no_interval(patients)
    samples = samples[np.isfinite(samples)]
    if samples.size == 0 or np.ptp(samples) < 1e-12:
        return wilson(min(max(value, 0.0), 1.0) * patients, patients), "Wilson over patients (the bootstrap has no spread)", ""
    low, high = np.percentile(samples, (2.5, 97.5))
    return (float(low), float(high)), BOOTSTRAP, ""


def student_interval(sums: ArrayLike, sizes: ArrayLike, *, bounds: Interval) -> Interval | None:
    """Student's t interval of sum(sums) / sum(sizes) over patients, cut to what the number can be; None of one patient or of values alike.

    Args:
        sums: (P,) of the values of each patient.
        sizes: (P,) how many values each patient has.
        bounds: The least and the largest value that the number can have.
    """
    from scipy.stats import t

    error, patients = ratio_error(sums, sizes), len(np.asarray(sums))
    if not error > 1e-12:
        return None
    value, half = float(np.sum(sums) / np.sum(sizes)), float(t.ppf(0.975, patients - 1)) * error
    return max(bounds[0], value - half), min(bounds[1], value + half)


def patient_weights(patients: int, *, columns: int = 0, draws: int = DRAWS, seed: int = SEED) -> Iterator[Floats]:
    """How often each patient is drawn, in blocks of (draws of the block, P).

    Args:
        patients: P.
        columns: Width of what the caller makes of a draw, so that a block stays small in memory.
        draws: All draws together.
        seed: The same patients give the same draws.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _CHUNK_ELEMENTS // max(patients, columns, 1))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = generator.integers(0, patients, (size, patients)) + patients * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients).astype(np.float64)


def index_patients(patients: ArrayLike) -> tuple[NDArray[np.intp], int]:
    """Patients as 0 .. P-1, and P."""
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    return index.astype(np.intp), len(names)


class RankedUnits:
    """Positives and negatives by descending score, ties taken together; the ground of every threshold-free number.

    Args:
        labels: (N,) 1 positive, 0 negative.
        scores: (N,) finite.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike) -> None:
        label, score = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
        self.order = np.argsort(-score, kind="stable")
        self.positive = label[self.order]
        ranked = score[self.order]
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, dtype=np.intp)
        self.thresholds: Floats = ranked[self.ends]

    def cumulated(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """True and false positives (..., T) at each distinct score; `weights` (..., N) is how often each unit counts."""
        weight = np.ones(len(self.order)) if weights is None else weights[..., self.order]
        hits = np.cumsum(weight * self.positive, axis=-1)[..., self.ends]
        alarms = np.cumsum(weight * (1 - self.positive), axis=-1)[..., self.ends]
        return hits, alarms

    def bootstrap(self, patients: ArrayLike, statistic: Callable[[Floats, Floats], Floats], *, draws: int = DRAWS) -> Floats:
        """(draws,) a statistic of the cumulated counts when whole patients are drawn."""
        index, count = index_patients(patients)
        blocks = patient_weights(count, columns=len(index), draws=draws)
        return np.concatenate([statistic(*self.cumulated(block[:, index])) for block in blocks])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
