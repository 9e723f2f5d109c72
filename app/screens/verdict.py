"""The reviewer's verdict on a finding, saved as a new row each time."""

import pandas as pd
import streamlit as st

from decisions import VERDICTS, Decision, current, save_decision
from medssl.errors import MedSSLError
from medssl.scoring.finding import Finding
from results import Results
from screens.worklist import go_to_scan, neighbour


def record_verdict(results: Results, finding: Finding, decisions: pd.DataFrame, label: float) -> None:
    """Ask for a verdict and say whether it was saved.

    Args:
        results: The results folder.
        finding: What the model found.
        decisions: All decisions so far; those of others are told only to a reviewer who has decided, so that they cannot lead.
        label: 1 lesion, 0 none, NaN unknown; told only then, too.
    """
    st.divider()
    reviewer = st.text_input("Reviewer", key="reviewer", max_chars=40, placeholder="initials or code", persist_state="session").strip()
    mine = decisions[(decisions["scan"] == finding.scan_id) & (decisions["reviewer"] == reviewer)]
    fill_in(finding.scan_id, reviewer, mine)
    with st.form("verdict_form", enter_to_submit=False, border=False):
        st.radio("Do you agree with the finding?", VERDICTS, key="verdict", horizontal=True, index=None)
        st.slider("Confidence, %", 0, 100, step=5, key="confidence")
        st.text_area("Comment", key="comment", max_chars=2000, height=80)
        save, onward = st.columns(2)
        for column, text, key, moves in ((save, "Save", "save", False), (onward, "Save and next", "save_next", True)):
            column.form_submit_button(
                text,
                key=key,
                type="secondary" if moves else "primary",
                on_click=save_answer,
                args=(results, finding, moves),
                width="stretch",
            )
    show_outcome()
    if not len(mine):
        return
    show_history(decisions[decisions["scan"] == finding.scan_id])
    if not pd.isna(label):
        st.caption("Reference: lesion" if label == 1 else "Reference: no lesion")


def fill_in(scan_id: str, reviewer: str, mine: pd.DataFrame) -> None:
    """Begin with the reviewer's standing decision on this scan, or empty."""
    state = st.session_state
    if state.get("verdict_of") == (scan_id, reviewer, len(mine)) and "confidence" in state:
        return
    unnamed = state.get("verdict_of", ("", "", 0))[:2] == (scan_id, "")
    state["verdict_of"] = (scan_id, reviewer, len(mine))
    if len(mine):
        last = mine.iloc[-1]
        state["verdict"], state["confidence"], state["comment"] = last["verdict"], int(last["confidence"]), last["comment"]
    elif not unnamed or "confidence" not in state:
        # Typing the initials after the answer must not wipe the answer; another reader's answer must not be left for the next one.
        state["verdict"], state["confidence"], state["comment"] = None, 80, ""


def save_answer(results: Results, finding: Finding, moves: bool) -> None:
    """Append the answer on the screen; the outcome is told on the next run of the page."""
    state = st.session_state
    reviewer, verdict = str(state.get("reviewer") or "").strip(), state.get("verdict")
    if not reviewer or verdict is None:
        state["save_outcome"] = (False, "Not saved: enter your initials and choose a verdict first.")
        return
    decision = Decision(
        scan=finding.scan_id,
        reviewer=reviewer,
        verdict=verdict,
        confidence=int(state["confidence"]),
        comment=str(state["comment"] or ""),
        model_id=finding.model_id,
    )
    try:
        number = save_decision(results.folder / "review.sqlite", decision)
    except MedSSLError as error:
        state["save_outcome"] = (False, str(error)[0].upper() + str(error)[1:])
        return
    state["save_outcome"] = (True, f"Saved: {verdict} on {finding.scan_id} (decision {number}).")
    following = neighbour(state.get("worklist_order", []), finding.scan_id, 1)
    if moves and following:
        go_to_scan(following)


def show_outcome() -> None:
    """Tell once whether the last answer was saved."""
    outcome = st.session_state.pop("save_outcome", None)
    if outcome is not None:
        saved, message = outcome
        (st.success if saved else st.error)(message)


def show_history(decisions: pd.DataFrame) -> None:
    """The standing decisions of all reviewers on this scan."""
    for row in current(decisions).to_dict("records"):
        comment = f": {row['comment']}" if row["comment"] else ""
        st.text(f"{row['reviewer']} {row['verdict']} ({row['confidence']} %){comment}")
