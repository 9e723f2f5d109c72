"""Reading a results folder: the tables of scans, the run record, the truth where it is known."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from medssl.cells import plain
from medssl.errors import ManifestError
from medssl.scoring.finding import Finding

SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
NUMBERS = ("score", "threshold", "lesion_count", "lesion_volume_ml")
COLUMNS = ("scan_id", "status", "score", "threshold", "verdict", "lesion_count", "lesion_volume_ml", "model_id", "warnings")


@dataclass(frozen=True)
class Results:
    """One results folder.

    Args:
        folder: The folder that `medssl score` wrote.
        table: Rows of `results.csv`, highest score first, with `site` and `label` (1, 0 or NaN) where the truth is known.
        run: `run.json`, empty when absent.
        has_truth: At least one scored scan has a label.
    """

    folder: Path
    table: pd.DataFrame
    run: dict[str, Any]
    has_truth: bool

    @property
    def scored(self) -> pd.DataFrame:
        """Rows with a score."""
        return self.table[self.table["status"] == "scored"]

    @property
    def rejected(self) -> pd.DataFrame:
        """Rows that intake refused."""
        return self.table[self.table["status"] == "rejected"]

    @property
    def threshold(self) -> float:
        """Locked threshold for scans; 0.5 when the run names none."""
        point = (self.run.get("operating_points") or {}).get("scan") or {}
        locked = self.scored["threshold"].dropna()
        return float(point.get("threshold", locked.iloc[0] if len(locked) else 0.5))

    def finding(self, scan_id: str) -> Finding | None:
        """The finding of a scan of the table; None when its file is absent or damaged."""
        try:
            return Finding.read(self.folder / "scans" / f"{scan_id}.json")
        except (OSError, ManifestError):
            return None


def modified(path: Path) -> float:
    """Time of the last change in seconds, 0 for a file that does not exist; it keys the caches."""
    return path.stat().st_mtime if path.is_file() else 0.0


@st.cache_data(max_entries=4, show_spinner=False)
def load_table(path: Path, modified: float) -> pd.DataFrame:  # noqa: ARG001 - `modified` only keys the cache
    """Read a table of text cells.

    Raises:
        ManifestError: `encoding` or `bad_row` when it is no UTF-8 comma-separated table with a scan_id column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except UnicodeDecodeError as error:
        raise ManifestError("encoding", f"{path.name} is not UTF-8; run `medssl score` again") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ManifestError("bad_row", f"{path.name} is not a table; run `medssl score` again") from error
    if "scan_id" not in table:
        raise ManifestError("missing_column", f"{path.name} has no column scan_id; run `medssl score` again")
    return table


@st.cache_data(max_entries=4, show_spinner=False)
def load_json(path: Path, modified: float) -> dict[str, Any]:  # noqa: ARG001 - `modified` only keys the cache
    """Read a JSON object; empty when the file is absent or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def load_results(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        ManifestError: `results.csv` is damaged or lacks a column.
    """
    path = folder / "results.csv"
    table = load_table(path, modified(path))
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise ManifestError("missing_column", f"results.csv has no column {absent[0]}; run `medssl score` again")
    # A scan_id becomes part of a file name, so a hand-edited table must not lead out of the folder.
    table = table[table["scan_id"].map(lambda name: SAFE_ID.fullmatch(name) is not None).astype(bool)].copy()
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table = with_truth(table.drop_duplicates("scan_id"), folder / "reference.csv")
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    run = folder / "run.json"
    known = bool(table.loc[table["status"] == "scored", "label"].notna().any())
    return Results(folder=folder, table=table, run=load_json(run, modified(run)), has_truth=known)


def with_truth(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the columns `site` and `label` of a reference table, empty where there is none."""
    if not path.is_file():
        return table.assign(site="", label=float("nan"))
    reference = load_table(path, modified(path)).drop_duplicates("scan_id").set_index("scan_id")
    site = reference["site"].map(plain) if "site" in reference else pd.Series(dtype=str)
    label = pd.to_numeric(reference["label"], errors="coerce") if "label" in reference else pd.Series(dtype=float)
    return table.assign(site=table["scan_id"].map(site).fillna(""), label=table["scan_id"].map(label).astype(float))
