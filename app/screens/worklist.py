"""The worklist: every scan, most suspicious first; the chosen one is in the address as ?scan=."""

import pandas as pd
import streamlit as st

from decisions import VERDICTS, current
from results import Results

EVERY = "all"
OPEN = "not reviewed"


def pick_scan(results: Results, decisions: pd.DataFrame) -> str:
    """The scan to read: from the address, else the first of the filtered list."""
    reviewer = str(st.session_state.get("reviewer") or "").strip()
    rows = with_decisions(results.table, decisions[decisions["reviewer"] == reviewer])
    shown = pick_rows(rows)
    order = shown["scan_id"].tolist()
    st.session_state["worklist_order"] = order
    asked = st.query_params.get("scan")
    # The address is compared with the table and never becomes part of a path.
    if asked is not None and asked not in set(rows["scan_id"]):
        st.error("The address names an unknown scan. Choose one from the worklist.")
        show_table(shown, None)
        st.stop()
    chosen = asked or (order[0] if order else rows["scan_id"].iloc[0])
    show_steps(order, chosen)
    show_table(shown, chosen)
    return str(chosen)


def with_decisions(table: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Add the column `decision`: what stands now of the decisions of one reviewer; those of others must not lead."""
    standing = current(decisions).set_index("scan")["verdict"]
    return table.assign(decision=table["scan_id"].map(standing).fillna("") if len(standing) else "")


def pick_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that pass the filters."""
    by_verdict, by_decision = st.columns(2)
    verdict = by_verdict.selectbox("Finding", [EVERY, "positive", "negative", "rejected"], key="filter_verdict", persist_state="session")
    decision = by_decision.selectbox("Decision", [EVERY, OPEN, *VERDICTS], key="filter_decision", persist_state="session")
    sites = sorted(set(rows["site"]) - {""})
    site = st.selectbox("Site", [EVERY, *sites], key="filter_site", persist_state="session") if len(sites) > 1 else EVERY
    if verdict != EVERY:
        rows = rows[(rows["status"] if verdict == "rejected" else rows["verdict"]) == verdict]
    if decision != EVERY:
        rows = rows[rows["decision"] == ("" if decision == OPEN else decision)]
    return rows if site == EVERY else rows[rows["site"] == site]


def show_steps(order: list[str], chosen: str) -> None:
    """Previous and next scan of the list, and how far the reader is."""
    place = order.index(chosen) if chosen in order else -1
    before, after = neighbour(order, chosen, -1), neighbour(order, chosen, 1)
    previous, following = st.columns(2)
    previous.button(
        "Previous", key="previous_scan", on_click=go_to_scan, args=(before,), disabled=before is None, shortcut="P", width="stretch"
    )
    following.button("Next", key="next_scan", on_click=go_to_scan, args=(after,), disabled=after is None, shortcut="N", width="stretch")
    st.caption(f"Scan {place + 1} of {len(order)}" if place >= 0 else f"{len(order)} scans in the list")


def neighbour(order: list[str], chosen: str, step: int) -> str | None:
    """The scan `step` places further in the list, None beyond its ends."""
    place = order.index(chosen) + step if chosen in order else 0
    return order[place] if 0 <= place < len(order) else None


def go_to_scan(scan_id: str) -> None:
    """Make a scan the chosen one."""
    st.query_params["scan"] = scan_id


def show_table(shown: pd.DataFrame, chosen: str | None) -> None:
    """The table; a click on a row chooses its scan."""
    if shown.empty:
        st.info("No scan passes the filters. Set them back to all.")
        return
    order = shown["scan_id"].tolist()
    rows = [order.index(chosen)] if chosen in order else []
    # The table keeps its own selection, so it is told when the buttons or the address moved on.
    st.session_state["worklist_table"] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    columns = {
        "scan_id": st.column_config.TextColumn("Scan", width=95),
        "score": st.column_config.ProgressColumn("Score", width=75, min_value=0.0, max_value=1.0, format="%.2f"),
        "verdict": st.column_config.TextColumn("Finding", width=70),
        "decision": st.column_config.TextColumn("Decision", width=75),
    }
    table = shown[list(columns)].assign(verdict=shown["verdict"].where(shown["status"] == "scored", "rejected"))
    st.dataframe(
        table,
        key="worklist_table",
        on_select=follow_selection,
        selection_mode="single-row",
        column_config=columns,
        hide_index=True,
        height=min(640, 38 + 35 * len(table)),
        placeholder="",
        alt="Worklist, most suspicious scan first",
    )


def follow_selection() -> None:
    """Choose the scan of the row that was clicked."""
    rows = st.session_state["worklist_table"]["selection"]["rows"]
    order = st.session_state["worklist_order"]
    if rows and rows[0] < len(order):
        go_to_scan(order[rows[0]])
