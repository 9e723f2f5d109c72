"""Whether thresholds were locked before there were test scores: rates at a newer one are refused, not only remarked upon."""

import datetime
from collections.abc import Mapping
from typing import Any


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
