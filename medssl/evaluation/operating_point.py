"""The threshold that a bundle carries: chosen on validation scores by a stated rule, before test scores exist."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.errors import ConfigError

_SHARE = r"0?\.\d+|1(?:\.0*)?|0"
_FLOOR = re.compile(rf"(sensitivity|specificity)\s*>=\s*({_SHARE})")
_COST = re.compile(rf"cost\s+miss\s*=\s*(\d*\.?\d+)\s+alarm\s*=\s*(\d*\.?\d+)\s+prevalence\s*=\s*({_SHARE})")
_TAIL = 0.05
_MIDWAY = "youden midway"


@dataclass(frozen=True)
class Floor:
    """The highest of one rate among the thresholds that hold the other.

    Args:
        rate: `sensitivity` or `specificity`.
        least: What that rate must be at least.
    """

    rate: str
    least: float


@dataclass(frozen=True)
class Cost:
    """What wrong calls cost where the model will be used: Zweig and Campbell, Clinical Chemistry 39(4), 1993, "slope of the ROC curve".

    Args:
        miss: Of a false negative.
        alarm: Of a false positive, in the same unit.
        prevalence: Of positives where the model will be used, which need not be that of the validation scans.

    Raises:
        ConfigError: A cost that is not above 0, or a prevalence that is not between 0 and 1.
    """

    miss: float
    alarm: float
    prevalence: float

    def __post_init__(self) -> None:
        if min(self.miss, self.alarm) <= 0 or not 0 < self.prevalence < 1:
            found = f"miss={self.miss}, alarm={self.alarm}, prevalence={self.prevalence}"
            raise ConfigError(f"costs must be > 0 and the prevalence between 0 and 1, got {found}")

    def saved(self, sensitivity: NDArray[np.float64], specificity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cost of a case that right calls save: the expected cost is least where this is highest."""
        return self.miss * self.prevalence * sensitivity + self.alarm * (1 - self.prevalence) * specificity


Rule = Floor | Cost | None
"""What is asked of a threshold; None for Youden's index."""


@dataclass(frozen=True)
class OperatingPoint:
    """A locked threshold and what it gave where it was chosen; positive means score >= threshold.

    Args:
        unit: `scan` or `slice`.
        threshold: On the score, 0 to 1.
        rule: How it was chosen.
        chosen_on: The split it was chosen on.
        locked_at: When, as ISO 8601.
        n: Units it was chosen on.
        n_positive: Positive ones among them.
        sensitivity: On those units, None without a positive one.
        specificity: On those units, None without a negative one.
        evidence_sha256: Digest of the labels and scores it was chosen on (little endian, labels as bytes), so that it can be proved later.
    """

    unit: str
    threshold: float
    rule: str
    chosen_on: str
    locked_at: str
    n: int
    n_positive: int
    sensitivity: float | None
    specificity: float | None
    evidence_sha256: str = ""


def choose(
    labels: ArrayLike, scores: ArrayLike, *, unit: str, rule: str = "youden", chosen_on: str = "validation", locked_at: str
) -> OperatingPoint:
    """Choose a threshold; of equally good ones the higher, and with one class only a quantile, which `rule` then says.

    Args:
        labels: (N,) 1 positive, 0 negative.
        scores: (N,) suspicion; those that are not finite are left out.
        unit: What a label belongs to.
        rule: `youden`, `youden midway` (in the middle of the gap below it: the calls here are the same, and new scores that fall a little
            lower are not lost), `specificity >= 0.9` (then the highest sensitivity), `sensitivity >= 0.9` (then the highest specificity),
            or `cost miss=10 alarm=1 prevalence=0.05` (the least expected cost).
        chosen_on: Name of the split.
        locked_at: ISO 8601 time.

    Raises:
        ConfigError: The rule is not one of these.
    """
    score = np.asarray(scores, dtype=float)
    kept = np.isfinite(score)
    truth, score = np.asarray(labels, dtype=bool)[kept], score[kept]
    wanted = parse_rule(rule)
    if truth.any() and not truth.all():
        threshold = _best(truth, score, wanted)
        threshold = _midway(score, threshold) if rule == _MIDWAY else threshold
    else:
        threshold, rule = _without_one_class(truth, score)
    called = score >= threshold
    return OperatingPoint(
        unit=unit,
        threshold=threshold,
        rule=rule,
        chosen_on=chosen_on,
        locked_at=locked_at,
        n=len(score),
        n_positive=int(truth.sum()),
        sensitivity=float(called[truth].mean()) if truth.any() else None,
        specificity=float((~called[~truth]).mean()) if (~truth).any() else None,
        evidence_sha256=hashlib.sha256(truth.astype(np.uint8).tobytes() + score.astype("<f8").tobytes()).hexdigest(),
    )


def parse_rule(rule: str) -> Rule:
    """What a rule asks for.

    Raises:
        ConfigError: The rule is not one of those that `choose` names, or a value in it is out of range.
    """
    if rule in ("youden", _MIDWAY):
        return None
    floor, cost = _FLOOR.fullmatch(rule), _COST.fullmatch(rule)
    if floor is not None:
        return Floor(floor[1], float(floor[2]))
    if cost is not None:
        return Cost(*(float(value) for value in cost.groups()))
    raise ConfigError(
        f"operating point rule {rule!r} is unknown; give youden, youden midway, 'specificity >= 0.9', 'sensitivity >= 0.9' or "
        "'cost miss=10 alarm=1 prevalence=0.05'"
    )


def _best(truth: NDArray[np.bool_], score: NDArray[np.float64], wanted: Rule) -> float:
    # One candidate above every score, so that a floor of specificity can always be kept, and a rare disease be left uncalled.
    candidates = np.unique(score) if wanted is None else np.append(np.unique(score), np.nextafter(score.max(), np.inf))
    below_positive = np.searchsorted(np.sort(score[truth]), candidates)  # how many are < each candidate
    below_negative = np.searchsorted(np.sort(score[~truth]), candidates)
    sensitivity = 1 - below_positive / truth.sum()
    specificity = below_negative / (~truth).sum()
    if wanted is None:
        # The sums are of whole numbers over common denominators: compare exactly, so that ties are ties.
        return _highest(candidates, (truth.sum() - below_positive) * (~truth).sum() + below_negative * truth.sum())
    if isinstance(wanted, Cost):
        return _highest(candidates, wanted.saved(sensitivity, specificity).round(12))
    held, freed = (specificity, sensitivity) if wanted.rate == "specificity" else (sensitivity, specificity)
    return _highest(candidates, np.where(held >= wanted.least - 1e-12, freed, -1.0))


def _highest(candidates: NDArray[np.float64], worth: NDArray[np.generic]) -> float:
    """The highest of the candidates that are worth most."""
    return float(candidates[worth == worth.max()].max())


def _midway(score: NDArray[np.float64], threshold: float) -> float:
    """The middle between a threshold and the next lower score; the threshold itself where there is none."""
    below = score[score < threshold]
    return float((threshold + below.max()) / 2) if len(below) else threshold


def _without_one_class(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[float, str]:
    if len(score) == 0:
        return 0.5, "fixed at 0.5: no labelled score to choose on"
    if truth.all():
        return float(np.quantile(score, _TAIL)), f"{_TAIL:.0%} quantile of positives: no negative to choose on"
    return float(np.nextafter(np.quantile(score, 1 - _TAIL), np.inf)), f"{1 - _TAIL:.0%} quantile of negatives: no positive to choose on"
