"""What reviewers decided: an append-only SQLite table, so that no verdict is ever lost or rewritten.

A change of mind is a new row that names the row it supersedes; two reviewers of one scan are two rows.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from medssl.cells import safe
from medssl.errors import MedSSLError, NoSpaceError

VERDICTS = ("agree", "disagree", "uncertain")
COLUMNS = ("id", "scan", "reviewer", "verdict", "confidence", "comment", "at", "supersedes", "model_id")
BUSY_TIMEOUT_S = 30.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY,
    scan TEXT NOT NULL,
    reviewer TEXT NOT NULL CHECK (length(trim(reviewer)) > 0),
    verdict TEXT NOT NULL CHECK (verdict IN ('agree', 'disagree', 'uncertain')),
    confidence INTEGER NOT NULL CHECK (confidence BETWEEN 0 AND 100),
    comment TEXT NOT NULL,
    at TEXT NOT NULL,
    supersedes INTEGER UNIQUE REFERENCES decisions (id),
    model_id TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS decisions_no_update BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER IF NOT EXISTS decisions_no_delete BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER IF NOT EXISTS decisions_supersede_own BEFORE INSERT ON decisions
WHEN NEW.supersedes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM decisions WHERE id = NEW.supersedes AND scan = NEW.scan AND reviewer = NEW.reviewer)
BEGIN SELECT RAISE(ABORT, 'a decision supersedes an earlier one of the same reviewer on the same scan'); END;
"""
INSERT = """
INSERT INTO decisions (scan, reviewer, verdict, confidence, comment, at, supersedes, model_id)
VALUES (:scan, :reviewer, :verdict, :confidence, :comment, :at,
        (SELECT max(id) FROM decisions WHERE scan = :scan AND reviewer = :reviewer), :model_id)
"""


class NotSavedError(MedSSLError):
    """The review database did not take a decision; the rows before it are intact."""


@dataclass(frozen=True)
class Decision:
    """A reviewer's verdict on one scan.

    Args:
        scan: Scan id of the results folder.
        reviewer: Initials or a code, not empty.
        verdict: One of `VERDICTS`: does the reviewer agree with the finding?
        confidence: 0 to 100 per cent.
        comment: Free text.
        model_id: The model whose finding was judged.
    """

    scan: str
    reviewer: str
    verdict: str
    confidence: int
    comment: str
    model_id: str


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode: each statement is one durable transaction."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(SCHEMA)
        yield connection


@contextmanager
def unchanged(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database in a folder that cannot be written, such as that of an archived study."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        yield connection


def save_decision(path: Path, decision: Decision) -> int:
    """Append a decision and return its id, after the commit.

    Raises:
        NoSpaceError: The disk is full.
        NotSavedError: The database is locked, read-only or damaged, or the decision breaks a rule of the table.
    """
    values = {**vars(decision), "reviewer": decision.reviewer.strip(), "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    try:
        with connected(path) as connection:
            row = connection.execute(INSERT, values).lastrowid
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise NoSpaceError("not saved: the disk of the results folder is full; free some space and save again") from error
        raise NotSavedError(f"not saved: {error}; check that the results folder can be written, then save again") from error
    if row is None:
        raise NotSavedError("not saved: the database gave no row; save again")
    return row


def read_decisions(path: Path) -> pd.DataFrame:
    """Every decision, oldest first; no rows when the database does not exist.

    Raises:
        NotSavedError: The file is no review database.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        with connected(path) if _is_writable(path) else unchanged(path) as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM decisions ORDER BY id").fetchall()
    except sqlite3.Error as error:
        raise NotSavedError(f"the review database cannot be read: {error}; move {path.name} away to begin a new one") from error
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def current(decisions: pd.DataFrame) -> pd.DataFrame:
    """The decisions that no later one supersedes: one row a scan and reviewer."""
    return decisions[~decisions["id"].isin(decisions["supersedes"].dropna())]


def safe_csv(table: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV whose text cells cannot run as formulas in a spreadsheet."""
    shown = table.copy()
    for name in shown.columns:
        if not pd.api.types.is_numeric_dtype(shown[name]):
            shown[name] = shown[name].map(safe)
    return shown.to_csv(index=False).encode("utf-8")
