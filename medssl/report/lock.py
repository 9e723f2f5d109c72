"""Whether thresholds were locked before there were test scores: rates at a newer one are refused, not only remarked upon."""

import datetime
from collections.abc import Mapping
from typing import Any

CROSS_VALIDATION = "cross-validation"
OUT_OF_FOLD = "out-of-fold scores"


def refusals(run: Mapping[str, Any]) -> dict[str, str]:
    """Why the rates of a unit (`scan`, `slice`, `voxel`) are refused; a unit whose threshold is not newer than the scores is absent.

    Args:
        run: `run.json` of a results folder; its `started` is when the first score was made.
    """
    begun = moment(run.get("started"))
    if begun is None:
        return {}
    locked = {unit: moment(point.get("locked_at")) for unit, point in points_of(run).items()}
    return {
        unit: f"its threshold was locked at {time.isoformat()}, after scoring had begun at {begun.isoformat()}"
        for unit, time in locked.items()
        if time is not None and time > begun
    }


def doubts(run: Mapping[str, Any]) -> list[str]:
    """What is not recorded of the lock of the thresholds, as sentences; nothing where it can be shown or where there is no threshold."""
    points = [point for unit, point in points_of(run).items() if unit in ("scan", "slice") and point.get("threshold") is not None]
    if not points:
        return []
    missing = {
        "when scoring began, so whether the thresholds were locked before cannot be checked": moment(run.get("started")) is None,
        "when an operating point was chosen, so it may have been chosen after seeing these scans": any(
            moment(point.get("locked_at")) is None for point in points
        ),
        "a digest of the scores that a threshold was chosen on, so what it was chosen on cannot be proved": any(
            not point.get("evidence_sha256") for point in points
        ),
    }
    return [f"Not recorded: {what}." for what, absent in missing.items() if absent]


def is_apparent(run: Mapping[str, Any], unit: str) -> bool:
    """Whether the threshold of a unit was chosen on the very scores that are reported, those of a cross-validation."""
    return run.get("split") == CROSS_VALIDATION and points_of(run).get(unit, {}).get("chosen_on") == OUT_OF_FOLD


def is_tempered_here(run: Mapping[str, Any], unit: str) -> bool:
    """Whether the temperature of the scores of a unit was fitted on the very scores that are reported."""
    calibration = run.get("calibration")
    fitted = calibration.get(unit) if isinstance(calibration, dict) else None
    return run.get("split") == CROSS_VALIDATION and isinstance(fitted, dict) and fitted.get("temperature", 1.0) != 1.0


def points_of(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The operating points of a run by unit."""
    points = run.get("operating_points")
    return {unit: point for unit, point in (points if isinstance(points, dict) else {}).items() if isinstance(point, dict)}


def moment(text: object) -> datetime.datetime | None:
    """An ISO 8601 time, taken as UTC where it names no zone; None where it is none."""
    try:
        time = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
