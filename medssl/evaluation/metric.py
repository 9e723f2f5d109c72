"""One number of a report: its value, its interval, how both were found, and what it rests on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Interval = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A measured number, or the reason why there is none.

    Args:
        value: The estimate, None where it cannot be measured.
        ci95: 95 % interval, None where there is none.
        method: How the interval was found.
        k: Units that count for the value (the numerator of a proportion, the positives of a curve).
        n: Units the value rests on.
        note: What a reader has to know, such as why there is no value.
        beside: More facts of the same number, such as another interval, by JSON key.
    """

    value: float | None
    ci95: Interval | None
    method: str
    k: int
    n: int
    note: str = ""
    beside: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The record of `metrics.json`; a number that is not finite becomes null."""
        low, high = self.ci95 if self.ci95 is not None else (None, None)
        record: dict[str, object] = {
            "value": finite(self.value),
            "ci95": [finite(low), finite(high)],
            "method": self.method,
            "k": self.k,
            "n": self.n,
        }
        noted = {"note": self.note} if self.note else {}
        return record | noted | dict(self.beside)


def unmeasured(why: str, *, method: str = "none", n: int = 0) -> Metric:
    """A metric without a value; `why` completes the sentence "cannot be measured: ..."."""
    return Metric(value=None, ci95=None, method=method, k=0, n=n, note=f"cannot be measured: {why}")


def finite(value: float | None) -> float | None:
    """The value as a plain float, None where it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None
