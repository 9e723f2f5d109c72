"""What another threshold would do, live; the locked one stays the one that counts."""

import altair as alt
import pandas as pd
import streamlit as st

from medssl.evaluation.intervals import wilson
from results import Results

GROUPS = {1.0: "lesion", 0.0: "no lesion"}


def show(results: Results) -> None:
    """Move the threshold and see what follows."""
    scored = results.scored.dropna(subset=["score"])
    if scored.empty:
        st.info("No scan has a score. Run `medssl score BUNDLE FOLDER --out RESULTS` with scans that can be read.")
        return
    threshold = pick_threshold(results.threshold)
    called = int((scored["score"] >= threshold).sum())
    st.markdown(f"**{called} of {len(scored)}** scored scans are positive at a threshold of **{threshold:.3f}**.")
    chart, numbers = st.columns([3, 2], gap="large")
    with chart:
        show_histogram(scored, threshold, results.threshold)
    with numbers:
        show_rates(scored, threshold, results)
    show_provenance(results)


def pick_threshold(locked: float) -> float:
    """The threshold of the slider; it begins at the locked one."""
    slider, back = st.columns([6, 1], vertical_alignment="bottom")
    st.session_state.setdefault("threshold", locked)
    back.button("Back to locked", key="locked_threshold", on_click=reset_threshold, args=(locked,), width="stretch")
    most = max(1.0, locked)  # a rule that calls nothing positive locks just above the highest score
    threshold = float(slider.slider("Threshold for a positive scan", 0.0, most, step=0.001, format="%.3f", key="threshold"))
    if threshold != locked:
        st.warning(f"Exploratory: a threshold moved after seeing results is no evidence. The locked threshold is {locked:.3f}.")
    return threshold


def reset_threshold(locked: float) -> None:
    """Put the slider back on the locked threshold."""
    st.session_state["threshold"] = locked


def show_histogram(scored: pd.DataFrame, threshold: float, locked: float) -> None:
    """Scores by reference, with the two thresholds."""
    groups = scored.assign(reference=scored["label"].map(GROUPS).fillna("unknown"))
    colours = alt.Scale(domain=["lesion", "no lesion", "unknown"], range=["#f28b54", "#5aa9e6", "#9aa0a6"])
    bars = (
        alt.Chart(groups)
        .mark_bar(opacity=0.85)
        .encode(
            x=alt.X("score:Q", bin=alt.Bin(step=0.05, extent=[0, 1]), title="score", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("count():Q", title="scans", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("reference:N", scale=colours, title="reference", legend=alt.Legend(orient="top")),
        )
    )
    rules = pd.DataFrame({"score": [locked, threshold], "name": ["locked", "slider"]})
    lines = (
        alt.Chart(rules)
        .mark_rule(strokeWidth=2)
        .encode(x="score:Q", strokeDash=alt.StrokeDash("name:N", title="threshold", legend=alt.Legend(orient="top")))
    )
    st.altair_chart((bars + lines.encode(color=alt.value("#c58af9"))).properties(height=340), width="stretch")


def counts(scored: pd.DataFrame, threshold: float) -> tuple[int, int, int, int]:
    """True positives, false negatives, false positives and true negatives; positive means score >= threshold."""
    positive, lesion = scored["score"] >= threshold, scored["label"] == 1
    healthy = scored["label"] == 0
    pairs = ((positive, lesion), (~positive, lesion), (positive, healthy), (~positive, healthy))
    tp, fn, fp, tn = (int((called & truth).sum()) for called, truth in pairs)
    return tp, fn, fp, tn


def show_rates(scored: pd.DataFrame, threshold: float, results: Results) -> None:
    """Sensitivity and specificity with their intervals, and the table they come from."""
    if not results.has_truth:
        st.info("The truth is not known: sensitivity and specificity need a reference.csv with labels in the results folder.")
        return
    tp, fn, fp, tn = counts(scored, threshold)
    for name, k, n in (("Sensitivity", tp, tp + fn), ("Specificity", tn, tn + fp)):
        if n == 0:
            st.metric(name, "-", help="No scan of this class")
            continue
        low, high = wilson(k, n)
        st.metric(name, f"{k / n:.3f}")
        st.caption(f"{k} of {n}, 95 % Wilson interval {low:.3f} to {high:.3f}")
    st.dataframe(
        pd.DataFrame({"reference": ["lesion", "no lesion"], "called positive": [tp, fp], "called negative": [fn, tn]}), hide_index=True
    )
    unscored = int(results.rejected["label"].notna().sum())
    if unscored:
        st.caption(f"{unscored} rejected scans have a reference and are not counted here.")


def show_provenance(results: Results) -> None:
    """How the locked threshold was chosen."""
    point = (results.run.get("operating_points") or {}).get("scan") or {}
    if point:
        told = (
            f"{name.replace('_', ' ')}: {point[name]}" for name in ("rule", "chosen_on", "n", "locked_at") if point.get(name) is not None
        )
        st.caption(f"Locked threshold {results.threshold:.3f} · " + " · ".join(told))
