"""Every look at scans whose answers are known, in a log that only grows: a figure chosen among many looks is no independent test.

The log of a store counts what all models were tried on; a results folder keeps the lines that concern its own scans, so that a report,
which opens nothing else, can tell of them.
"""

import datetime
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LOG = "looks.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One look.

    Args:
        event: `scored` when a model was run on the scans, `reported` when its results met the answers once more.
        model_id: The bundle.
        split: Which scans.
        scans: How many.
        manifest_sha256: Digest of the table that describes them; empty where there is none.
        thresholds: Locked threshold of each unit at that time.
        time: ISO 8601.
    """

    event: str
    model_id: str
    split: str
    scans: int
    manifest_sha256: str
    thresholds: dict[str, float]
    time: str

    @classmethod
    def now(
        cls, event: str, *, model_id: str, split: str, scans: int, manifest_sha256: str, points: dict[str, dict[str, object]] | None = None
    ) -> "Look":
        """A look at this moment; `points` are the operating points of the bundle."""
        thresholds = {unit: point["threshold"] for unit, point in (points or {}).items()}
        locked = {unit: float(value) for unit, value in thresholds.items() if isinstance(value, int | float)}
        return cls(event, model_id, split, scans, manifest_sha256, locked, datetime.datetime.now(datetime.UTC).isoformat())

    def line(self) -> str:
        """The look as a line of the log."""
        return json.dumps(asdict(self), sort_keys=True)


def log_look(look: Look, *, store: Path, results: Path) -> None:
    """Write a look down at a store, and in the results folder together with the earlier looks at the same scans."""
    try:
        _append(store / LOG, [look.line()])
    except OSError as error:
        logger.warning("this look at split %s is not counted in %s/%s (%s)", look.split, store.name, LOG, error.strerror)
    known = set(_lines(results / LOG))
    _append(
        results / LOG,
        [line for line in dict.fromkeys([*_lines(store / LOG), look.line()]) if line not in known and _concerns(line, look.split)],
    )


def log_report(results: Path, reference: Path | None) -> None:
    """Write down that the results met the answers once more; a folder that cannot be written to is only told of."""
    table = reference or results / "reference.csv"
    run = _record(results / "run.json")
    if not table.is_file() or not run:
        return
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    look = Look.now(
        "reported",
        model_id=str(run.get("model_id", "")),
        split=str(run.get("split") or ""),
        scans=sum(1 for _ in (results / "scans").glob("*.json")),
        manifest_sha256=digest,
    )
    try:
        _append(results / LOG, [look.line()])
    except OSError as error:
        logger.warning("this look could not be logged in %s/%s (%s)", results.name, LOG, error.strerror)


def _concerns(line: str, split: str) -> bool:
    """Whether a look saw scans of a split; one that cannot be read counts."""
    try:
        seen = json.loads(line).get("split")
    except (ValueError, AttributeError):
        return True
    return split == seen or "all" in (split, seen)


def _append(path: Path, lines: Iterable[str]) -> None:
    """Add lines at the end in one write each, so that two that write at once lose none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        for line in lines:
            os.write(handle, f"{line}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _record(path: Path) -> dict[str, object]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
