"""Every decision of every reviewer, and its export."""

import streamlit as st

from decisions import current, read_decisions, safe_csv
from medssl.errors import MedSSLError
from results import Results


def show(results: Results) -> None:
    """The decisions, newest first."""
    try:
        decisions = read_decisions(results.folder / "review.sqlite")
    except MedSSLError as error:
        st.error(str(error))
        return
    if decisions.empty:
        st.info("No decision has been saved yet. Open the screen Reading, choose a scan and save a verdict.")
        return
    standing = current(decisions)
    reviewed, reviewers, agreed = st.columns(3)
    reviewed.metric("Scans reviewed", f"{standing['scan'].nunique()} of {len(results.scored)}")
    reviewers.metric("Reviewers", int(standing["reviewer"].nunique()))
    agreed.metric("Agree with the finding", f"{int((standing['verdict'] == 'agree').sum())} of {len(standing)}")
    whole = st.toggle("Show superseded decisions too", value=False, key="show_superseded")
    shown = (decisions if whole else standing).iloc[::-1]
    st.dataframe(shown, hide_index=True, placeholder="", key="decisions_table")
    st.download_button("Download all decisions as CSV", safe_csv(decisions), "decisions.csv", "text/csv", key="download_decisions")
    st.caption("Rows are never changed or removed: a change of mind is a new row that names the one it supersedes.")
