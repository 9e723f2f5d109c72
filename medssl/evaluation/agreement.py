"""How far readers agree beyond chance: Cohen's kappa of two, plain or weighted, and Fleiss' kappa of any number.

Cohen, 1960, https://doi.org/10.1177/001316446002000104, and 1968, https://doi.org/10.1037/h0026256; large-sample variance: Fleiss,
Cohen and Everitt, 1969, https://doi.org/10.1037/h0028106; many readers: Fleiss, 1971, https://doi.org/10.1037/h0031619.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medssl.errors import UsageError
from medssl.evaluation.few import FEW
from medssl.evaluation.intervals import BOOTSTRAP, Floats, patient_weights
from medssl.evaluation.metric import Metric, unmeasured

Weights = Literal["none", "linear", "quadratic"]

_Z95 = 1.959963984540054


def cohen_kappa(first: ArrayLike, second: ArrayLike, *, weights: Weights = "none") -> Metric:
    """Kappa of two readers with its large-sample interval; `k` is how often they agree of `n`.

    Args:
        first: (N,) category that the first reader gave; a category is a number or a name, those of one order sort in it. Cases that one
            of them left open (NaN) are left out, and counted in the note.
        second: (N,) category that the second reader gave.
        weights: `none` counts equal answers alone; `linear` and `quadratic` give part of it to near categories.

    Raises:
        UsageError: The readers answered for different numbers of cases.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        raise UsageError(f"two readers answered for {len(a)} and {len(b)} cases; give both answers of each case")
    method = "large-sample variance (Fleiss, Cohen and Everitt)"
    read = (a == a) & (b == b)  # noqa: PLR0124 (not a number is unequal to itself)
    left_out = f"{int((~read).sum())} cases without two readings are left out" if not read.all() else ""
    a, b = a[read], b[read]
    if len(a) == 0:
        return unmeasured("no case with two readings", method=method)
    names, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (index[: len(a)], index[len(a) :]), 1 / len(a))
    if len(names) == 1:
        return unmeasured("both readers gave one answer to every case", method=method, n=len(a))
    value, variance = _kappa(table, _worth(len(names), weights), len(a))
    k = int((a == b).sum())
    if variance < 1e-15:
        return Metric(value, None, "none", k, len(a), "no interval: the readers never differ, and the variance has no width")
    half = _Z95 * math.sqrt(variance)
    rough = f"only {len(a)} cases: the interval is rough" if len(a) < FEW else ""
    note = "; ".join(filter(None, (rough, left_out)))
    return Metric(value, (max(-1.0, value - half), min(1.0, value + half)), method, k, len(a), note)


def _worth(categories: int, weights: Weights) -> Floats:
    """(C, C) what a pair of answers is worth, 1 when equal and 0 when farthest apart."""
    if weights == "none":
        return np.eye(categories)
    apart = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories))) / (categories - 1)
    return np.asarray(1 - apart ** (1 if weights == "linear" else 2))


def _kappa(table: Floats, worth: Floats, n: int) -> tuple[float, float]:
    """Kappa and its variance of a (C, C) table of shares; equation 15 of Fleiss, Cohen and Everitt."""
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    seen, expected = float((table * worth).sum()), float(rows @ worth @ columns)
    by_row, by_column = worth @ columns, rows @ worth
    spread = worth * (1 - expected) - (by_row[:, None] + by_column[None]) * (1 - seen)
    centre = seen * expected - 2 * expected + seen
    variance = (float((table * spread**2).sum()) - centre**2) / (n * (1 - expected) ** 4)
    return (seen - expected) / (1 - expected), max(0.0, variance)


def fleiss_kappa(counts: ArrayLike) -> Metric:
    """Kappa of several readers with the bootstrap over cases; `k` is the number of cases in which all agree, of `n`.

    Args:
        counts: (N, C) how many readers gave each category to each case; every case has the same number of readers, two or more.

    Raises:
        UsageError: The cases have different numbers of readers, or fewer than two.
    """
    table = np.asarray(counts, dtype=float)
    if table.size == 0:
        return unmeasured("no case with readings", method=BOOTSTRAP)
    readers = table.sum(axis=1)
    if readers.min() != readers.max() or readers[0] < 2:
        raise UsageError("Fleiss' kappa needs the same number of readers for every case, two or more")
    n, k = len(table), int((table.max(axis=1) == readers[0]).sum())
    if (table.sum(axis=0) > 0).sum() == 1:
        return unmeasured("all readers gave one answer to every case", method=_over_cases(), n=n)
    agreed = (table * (table - 1)).sum(axis=1) / (readers[0] * (readers[0] - 1))
    value = float(_fleiss(np.ones((1, n)), agreed, table)[0])
    samples = np.concatenate([_fleiss(block, agreed, table) for block in patient_weights(n)])
    samples = samples[np.isfinite(samples)]
    if n < 2 or np.ptp(samples) < 1e-12:
        return Metric(value, None, "none", k, n, "no interval: one case, or readers who never differ")
    low, high = np.percentile(samples, (2.5, 97.5))
    return Metric(value, (float(low), float(high)), _over_cases(), k, n, f"only {n} cases: the interval is rough" if n < FEW else "")


def _fleiss(weights: Floats, agreed: Floats, table: Floats) -> Floats:
    """(B,) Fleiss' kappa when cases count as often as (B, N) says; NaN where one category is all there is."""
    sizes = weights.sum(axis=1)
    shares = weights @ table / (sizes * table[0].sum())[:, None]
    expected = (shares**2).sum(axis=1)
    rest = np.asarray(1 - expected)
    return np.asarray(np.divide(weights @ agreed / sizes - expected, rest, out=np.full_like(rest, np.nan), where=rest > 1e-12))


def _over_cases() -> str:
    return BOOTSTRAP.replace("patients", "cases")
