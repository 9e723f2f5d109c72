"""The review app: reads a results folder, never a model. Research use only.

Run by `medssl review RESULTS`, or by path: `streamlit run app/review.py --server.address 127.0.0.1 --theme.base dark -- RESULTS`.
"""

import sys
from pathlib import Path

import streamlit as st

from medssl.errors import MedSSLError
from results import Results, load_results
from screens import decision_log, operating_point, reading, summary

DISCLAIMER = "Research use only. Not a medical device."
SCREENS = {
    "Reading": reading.show,
    "Operating point": operating_point.show,
    "Report": summary.show,
    "Decisions": decision_log.show,
}


def pick_folder() -> Path:
    """The results folder named after `--` on the command line."""
    if len(sys.argv) < 2:
        st.error("No results folder was given. Run `medssl review RESULTS`.")
        st.stop()
    folder = Path(sys.argv[1])
    if not folder.is_dir():
        st.error("The results folder does not exist. Run `medssl score BUNDLE FOLDER --out RESULTS` first, then `medssl review RESULTS`.")
        st.stop()
    return folder


def load_or_explain(folder: Path) -> Results:
    """The results, or a message that names the next command."""
    if not (folder / "results.csv").is_file():
        st.error("This folder has no results.csv. Run `medssl score BUNDLE FOLDER --out RESULTS`, then reload this page.")
        st.stop()
    try:
        results = load_results(folder)
    except MedSSLError as error:
        st.error(str(error))
        st.stop()
    if results.table.empty:
        st.info("No scan has been scored yet. Run `medssl score BUNDLE FOLDER --out RESULTS` with a folder that holds scans.")
        st.stop()
    return results


def pick_screen() -> str:
    """The screen chosen in the header, which also carries the name of the app and the disclaimer."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown("#### medssl review", width="content")
        chosen: str = st.segmented_control(
            "Screen", list(SCREENS), default="Reading", required=True, key="screen", label_visibility="collapsed", bind="query-params"
        )
        st.badge(DISCLAIMER, icon=":material/warning:", color="orange")
    return chosen


def main() -> None:
    """Choose, load, show."""
    st.set_page_config(page_title="medssl review", layout="wide")
    screen = pick_screen()
    results = load_or_explain(pick_folder())
    SCREENS[screen](results)


main()
