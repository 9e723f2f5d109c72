"""Window, level and overlays of the slice viewer."""

import streamlit as st

from medssl.scoring.finding import Finding
from slices import Look, presets
from volumes import ScanMaps


def begin_window(maps: ScanMaps, finding: Finding) -> None:
    """Choose the first preset that suits a scan which was not on the screen before."""
    name, window = next(iter(presets(maps, finding.modality).items()))
    st.session_state["preset"], st.session_state["window"] = name, window


def pick_look(maps: ScanMaps, finding: Finding, *, marked: bool) -> Look:
    """Window and overlays, chosen in the popover `Display`.

    Args:
        maps: The scan.
        finding: What the model found.
        marked: There are outlines of lesions to draw.
    """
    named = presets(maps, finding.modality)
    state = st.session_state
    # A closed popover does not keep the values of its widgets when their ranges change with the scan, so they are set anew.
    state["window_preset"] = state["preset"]
    state["window_width"], state["window_level"] = state["window"]
    st.selectbox("Window preset", list(named), key="window_preset", on_change=follow_preset, args=(named,))
    low, high = maps.range
    step = max(high - low, 1e-3) / 500
    widths, levels = zip(state["window"], *named.values(), strict=True)
    widest, lowest, highest = max(1.5 * (high - low), *widths), min(low, *levels), max(high, low + step, *levels)
    width = st.slider("Window", min(step, *widths), widest, step=step, key="window_width", on_change=follow_sliders)
    level = st.slider("Level", lowest, highest, step=step, key="window_level", on_change=follow_sliders)
    heat, contour, truth = pick_overlays(maps, marked=marked)
    return Look(window=width, level=level, heat=heat, contour=contour, truth=truth, letters=not finding.nominal)


def pick_overlays(maps: ScanMaps, *, marked: bool) -> tuple[float, bool, bool]:
    """Opacity of the probability map, and whether to draw the predicted and the true contour."""
    heat, contour, truth = 0.0, False, False
    if maps.probability is not None:
        heat = st.slider("Probability map opacity", 0.0, 1.0, 0.4, key="heat_opacity", persist_state="session")
    if marked:
        contour = st.toggle("Predicted contour (orange)", value=True, key="show_contour", persist_state="session")
    if maps.lesion is not None:
        truth = st.toggle("Reference contour (green)", value=False, key="show_truth", persist_state="session")
    return heat, contour, truth


def follow_preset(named: dict[str, tuple[float, float]]) -> None:
    """Take window and level from the chosen preset."""
    st.session_state["preset"] = st.session_state["window_preset"]
    st.session_state["window"] = named[st.session_state["preset"]]


def follow_sliders() -> None:
    """Take window and level from the sliders."""
    st.session_state["window"] = (st.session_state["window_width"], st.session_state["window_level"])
