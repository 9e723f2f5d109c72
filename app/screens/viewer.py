"""The slice viewer: three planes that share one crosshair, with heat map and contours over the image."""

from importlib.util import find_spec

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from medssl.scoring.finding import Corners, Finding, Triple
from screens.display import begin_window, pick_look
from slices import PLANES, Plane, draw_slice
from volumes import ScanMaps


@st.fragment
def show_viewer(maps: ScanMaps, finding: Finding) -> None:
    """One scan, slice by slice; only this part of the page runs again when the reader scrolls."""
    begin_scan(maps, finding)
    bar = st.container(horizontal=True, vertical_alignment="center")  # wraps where the screen is narrow
    name = "Axial"
    if maps.shape[2] > 1:
        chosen = bar.segmented_control(
            "Plane", list(PLANES), key="plane", required=True, persist_state="session", label_visibility="collapsed", width="content"
        )
        name = chosen or name
        bar.button("Most suspicious", key="most_suspicious", on_click=go_to_suspicious, args=(finding,), shortcut="S")
    boxes = boxes_of(maps, finding)
    with bar.popover("Display", icon=":material/tune:"):
        look = pick_look(maps, finding, marked=maps.mask is not None or bool(boxes))
    index = pick_slice(name, maps.shape[PLANES[name].axis])
    caption = describe(maps, finding, name, index)
    st.image(draw_slice(maps, PLANES[name], index, look, boxes), caption=caption, width="stretch", output_format="PNG", alt=caption)
    if len(finding.slice_scores) > 1:
        show_slice_scores(finding, index if name == "Axial" else None)
    if find_spec("medssl.viewer") is None:
        st.caption("Plain slice viewer: the interactive viewer is not built here (`make setup` with Node builds it).")


def boxes_of(maps: ScanMaps, finding: Finding) -> list[Corners]:
    """Boxes of lesions where there is no mask to outline, as a detector finds them."""
    return [lesion.box_voxel for lesion in finding.lesions if lesion.box_voxel is not None] if maps.mask is None else []


def begin_scan(maps: ScanMaps, finding: Finding) -> None:
    """Put crosshair, plane and window of a scan that was not on the screen before to what is most suspicious."""
    if st.session_state.get("viewed_scan") == finding.scan_id:
        return
    st.session_state["viewed_scan"] = finding.scan_id
    st.session_state["crosshair"] = [n // 2 for n in maps.shape]
    if finding.lesions:
        go_to_place(maps, finding.lesions[0].centre_mm)
    go_to_suspicious(finding)
    begin_window(maps, finding)


def go_to_suspicious(finding: Finding) -> None:
    """Show the axial slice with the highest score."""
    st.session_state["plane"] = "Axial"
    if finding.slice_scores:
        st.session_state["crosshair"][2] = int(np.argmax(finding.slice_scores))


def go_to_place(maps: ScanMaps, centre_mm: Triple) -> None:
    """Move the crosshair to a place in RAS+ millimetres."""
    voxel = np.linalg.solve(maps.affine[:3, :3], np.array(centre_mm) - maps.affine[:3, 3])
    st.session_state["crosshair"] = [int(n) for n in np.clip(np.rint(voxel), 0, np.array(maps.shape) - 1)]


def pick_slice(name: str, count: int) -> int:
    """Voxel index of the slice, chosen by the slider (which counts from 1) or by the buttons beside it."""
    axis = PLANES[name].axis
    crosshair = st.session_state["crosshair"]
    if count == 1:
        return 0
    key = f"slice_{name}"
    st.session_state[key] = crosshair[axis] + 1
    back, slider, forward = st.columns([1, 8, 1], vertical_alignment="bottom")
    for column, icon, step, shortcut in ((back, "left", -1, "J"), (forward, "right", 1, "K")):
        column.button(
            "",
            icon=f":material/chevron_{icon}:",
            key=f"slice_{icon}",
            shortcut=shortcut,
            on_click=step_slice,
            args=(axis, step, count),
            width="stretch",
        )
    slider.slider("Slice", 1, count, key=key, label_visibility="collapsed", on_change=follow_slider, args=(axis, key))
    return int(crosshair[axis])


def step_slice(axis: int, step: int, count: int) -> None:
    """Move the crosshair along an axis, stopping at the ends."""
    crosshair = st.session_state["crosshair"]
    crosshair[axis] = min(max(crosshair[axis] + step, 0), count - 1)


def follow_slider(axis: int, key: str) -> None:
    """Take the crosshair from the slider."""
    st.session_state["crosshair"][axis] = st.session_state[key] - 1


def describe(maps: ScanMaps, finding: Finding, name: str, index: int) -> str:
    """Where the slice lies, with its score on the axial plane."""
    plane = PLANES[name]
    place = "no physical position" if finding.nominal else position(maps, plane, index)
    scored = name == "Axial" and index < len(finding.slice_scores)
    score = [f"slice score {finding.slice_scores[index]:.3f}"] if scored else []
    return " · ".join([f"{name} slice {index + 1} of {maps.shape[plane.axis]}", place, *score])


def position(maps: ScanMaps, plane: Plane, index: int) -> str:
    """Place of the centre of a slice along its axis, such as `S 34.5 mm`."""
    voxel = [(n - 1) / 2 for n in maps.shape]
    voxel[plane.axis] = index
    mm = float((maps.affine[:3, :3] @ np.array(voxel) + maps.affine[:3, 3])[plane.axis])
    return f"{plane.names[int(mm >= 0)]} {abs(mm):.1f} mm"


def show_slice_scores(finding: Finding, index: int | None) -> None:
    """A strip with the score of each axial slice and a line at the one on the screen."""
    scores = pd.DataFrame({"slice": range(1, len(finding.slice_scores) + 1), "score": finding.slice_scores})
    axis = alt.X("slice:Q", title=None, scale=alt.Scale(domain=[1, len(scores)], nice=False), axis=alt.Axis(grid=False))
    height = alt.Y("score:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(values=[0, 0.5, 1], grid=False))
    strip: alt.Chart | alt.LayerChart = alt.Chart(scores).mark_area(opacity=0.5, interpolate="step", color="#fa8c14").encode(axis, height)
    if index is not None:
        strip += alt.Chart(pd.DataFrame({"slice": [index + 1]})).mark_rule(color="#8ab4f8", strokeWidth=2).encode(x="slice:Q")
    st.altair_chart(strip.properties(height=110), width="stretch")
    st.caption("Score of each axial slice")
