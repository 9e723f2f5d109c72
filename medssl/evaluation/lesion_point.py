"""The score from which a detector's mark counts as a lesion, chosen on validation scans by a stated rule."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ConfigError
from medssl.evaluation.lesions import Marks

_RATE = re.compile(r"fp <= (\d+(?:\.\d+)?)")


def check_rule(rule: str) -> float | None:
    """The false positives per scan that a rule allows; None for the best F1.

    Raises:
        ConfigError: The rule is neither.
    """
    found = _RATE.fullmatch(rule)
    if rule != "f1" and found is None:
        raise ConfigError(f"rule of lesions {rule!r} is unknown; give f1, or 'fp <= 1' for at most one false positive a scan")
    return None if found is None else float(found[1])


def choose_lesion_point(scans: Sequence[Marks], *, rule: str = "f1", chosen_on: str = "validation", locked_at: str) -> dict[str, object]:
    """The threshold on the score of a mark, as fields of an operating point of the unit `lesion`.

    It lies in the middle of the gap below the last mark that passes, so that new scores that fall a little lower are not lost. Without a
    lesion in validation it is the lowest threshold above every mark, and the rule says so.

    Args:
        scans: Matched marks of scans whose lesions are known.
        rule: `f1` for the highest F1 of lesions, or `fp <= 1` for the highest sensitivity at so many false positives a scan.
        chosen_on: Name of the split.
        locked_at: ISO 8601 time.

    Raises:
        ConfigError: An unknown rule.
    """
    rate = check_rule(rule)
    scores = np.array(sorted({score for scan in scans for score in (*scan.hits, *scan.alarms)}))
    candidates = np.append(scores, np.nextafter(scores.max(initial=0.0), np.inf))
    hits, alarms = (
        np.array([sum(score >= cut for scan in scans for score in getattr(scan, kind)) for cut in candidates]) for kind in _KINDS
    )
    lesions = sum(scan.n_lesions for scan in scans)
    if not lesions:
        best, rule = len(candidates) - 1, "above every mark: no validation scan with lesion"
    elif rate is None:
        best = _last_of_highest(2 * hits / np.maximum(hits + alarms + lesions, 1))
    else:
        best = _last_of_highest(np.where(alarms <= rate * len(scans), hits, -1))
    return {
        "unit": "lesion",
        "threshold": _midway(candidates, best),
        "rule": rule,
        "chosen_on": chosen_on,
        "locked_at": locked_at,
        "n": lesions,
        "n_positive": lesions,
        "n_scans": len(scans),
        "sensitivity": float(hits[best] / lesions) if lesions else None,
        "fp_per_scan": float(alarms[best] / max(len(scans), 1)),
    }


_KINDS = ("hits", "alarms")


def _last_of_highest(values: NDArray[np.float64]) -> int:
    """Of equally good thresholds the highest."""
    return int(len(values) - 1 - values[::-1].argmax())


def _midway(candidates: NDArray[np.float64], best: int) -> float:
    """The middle of the gap below a candidate; the last one is above every mark, and stays there."""
    if best == len(candidates) - 1:
        return float(candidates[best])
    return float(candidates[best] + (candidates[best - 1] if best else 0.0)) / 2
