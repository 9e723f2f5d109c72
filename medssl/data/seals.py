"""Records that notice when they were changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def seal(record: Mapping[str, Any]) -> bytes:
    """A record as JSON that carries the SHA-256 of its own content."""
    return json.dumps({**record, "sha256": _digest(record)}, indent=1).encode()


def unseal(data: bytes) -> dict[str, Any] | None:
    """The record that `seal` wrote; None when a byte of it was changed."""
    try:
        record = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(record, dict):
        return None
    stated = record.pop("sha256", None)
    return record if stated == _digest(record) else None


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The record of a file that `seal` filled; None when it is absent or was changed."""
    try:
        return unseal(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
