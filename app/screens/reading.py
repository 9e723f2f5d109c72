"""The reading room: worklist on the left, the scan in the middle, finding and verdict on the right."""

import pandas as pd
import streamlit as st

from decisions import read_decisions
from medssl.errors import MedSSLError
from medssl.scoring.finding import Finding
from results import Results, modified
from screens import verdict, viewer, worklist
from volumes import KINDS, ScanMaps, load_maps, map_path

SHOWN_LESIONS = 8


def show(results: Results) -> None:
    """Read one scan after the other."""
    left, middle, right = st.columns([7, 10, 6], gap="medium")
    decisions = load_decisions(results)
    with left:
        chosen = worklist.pick_scan(results, decisions)
    row = results.table[results.table["scan_id"] == chosen].iloc[0]
    if row["status"] != "scored":
        show_rejected(row)
        return
    finding = results.finding(chosen)
    if finding is None:
        st.error("The finding of this scan is missing or damaged. Run `medssl score` on the same folder again.")
        return
    maps = load_or_explain(results, finding)
    with right:
        show_finding(finding, row, maps)
        verdict.record_verdict(results, finding, decisions, row["label"])
    with middle:
        if maps is not None:
            viewer.show_viewer(maps, finding)


def load_decisions(results: Results) -> pd.DataFrame:
    """Decisions so far; a damaged database is told and read as none."""
    try:
        return read_decisions(results.folder / "review.sqlite")
    except MedSSLError as error:
        st.error(str(error))
        return read_decisions(results.folder / "absent")


def load_or_explain(results: Results, finding: Finding) -> ScanMaps | None:
    """The maps of a scan, or None after a message that names the next command."""
    times = tuple(modified(map_path(results.folder, finding.scan_id, kind)) for kind in KINDS)
    try:
        return load_maps(results.folder, finding.scan_id, times)
    except MedSSLError as error:
        st.error(str(error))
        return None


def show_rejected(row: pd.Series) -> None:
    """Why a scan has no finding."""
    st.markdown(f"##### {row['scan_id']}")
    codes = ", ".join(f"`{code}`" for code in row["warnings"].split(";") if code) or "no reason given"
    st.warning(f"This scan was rejected: {codes}. Run `medssl check FOLDER` for the details, then `medssl score` again.")


def show_finding(finding: Finding, row: pd.Series, maps: ScanMaps | None) -> None:
    """Score, facts and lesions of a scan."""
    positive = finding.verdict == "positive"
    title, badge = st.columns([3, 2], vertical_alignment="center")
    title.markdown(f"##### {finding.scan_id}")
    badge.badge(finding.verdict or "no verdict", color="red" if positive else "green")
    score, lesions, volume = st.columns([6, 4, 5])  # a score has five characters
    score.metric("Score", "-" if finding.score is None else f"{finding.score:.3f}", help=f"Locked threshold {finding.threshold or 0:.3f}")
    counted = finding.lesions or (maps is not None and maps.mask is not None)
    lesions.metric("Lesions", len(finding.lesions) if counted else "-")
    unit = "voxels" if finding.nominal else "ml"
    total = sum(lesion.voxels if finding.nominal else lesion.volume_ml for lesion in finding.lesions)
    volume.metric(f"Volume, {unit}", f"{total:.3g}" if finding.lesions else "-")
    st.caption(" · ".join(facts(finding, row)))
    if finding.warnings:
        st.caption("Intake warnings: " + ", ".join(f"`{code}`" for code in finding.warnings))
    if maps is not None:
        show_lesions(finding, maps)


def facts(finding: Finding, row: pd.Series) -> list[str]:
    """What is known of a scan, one short phrase each."""
    size = " x ".join(str(n) for n in finding.shape) if finding.shape else "size unknown"
    spacing = (
        " x ".join(f"{mm:.2f}" for mm in finding.spacing_mm) + " mm" if finding.spacing_mm and not finding.nominal else "no physical size"
    )
    site = [f"site {row['site']}"] if row["site"] else []
    return [finding.modality or "modality unknown", size, spacing, *site, f"model {finding.model_id[:12]}"]


def show_lesions(finding: Finding, maps: ScanMaps) -> None:
    """A button for each lesion, most suspicious first, that moves the viewer to its centre."""
    for number, lesion in enumerate(finding.lesions[:SHOWN_LESIONS], start=1):
        size = f"{lesion.voxels} voxels" if finding.nominal else f"{lesion.volume_ml:.2f} ml"
        place = "" if finding.nominal else " · (" + ", ".join(f"{mm:.0f}" for mm in lesion.centre_mm) + ") mm"
        label = f"Lesion {number} · {lesion.score:.2f} · {size}{place}"
        tip = "Show this lesion; right, anterior, superior millimetres"
        st.button(label, key=f"lesion_{number}", on_click=viewer.go_to_place, args=(maps, lesion.centre_mm), help=tip, width="stretch")
    if len(finding.lesions) > SHOWN_LESIONS:
        st.caption(f"and {len(finding.lesions) - SHOWN_LESIONS} smaller suspicions, see scans/{finding.scan_id}.json")
