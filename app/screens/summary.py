"""The numbers of the report, and the scans that could not be read."""

from typing import Any

import pandas as pd
import streamlit as st

from results import Results, load_json, modified

UNITS = ("patient", "scan", "slice", "lesion")


def show(results: Results) -> None:
    """Metrics, segmentation, rejected scans."""
    path = results.folder / "metrics.json"
    metrics = load_json(path, modified(path))
    show_download(results)
    if metrics:
        show_metrics(metrics)
    else:
        st.info("There is no report yet. Run `medssl report RESULTS --reference FILE.csv`, then reload this page.")
    show_rejected(results)
    show_run(results)


def show_download(results: Results) -> None:
    """The full report as a file to open in a browser."""
    page = results.folder / "report.html"
    if page.is_file():
        st.markdown("The full report is `report.html` in the results folder; it opens in any browser and needs no network.")
        st.download_button("Download report.html", page.read_bytes(), "report.html", "text/html", key="download_report")


def show_metrics(metrics: dict[str, Any]) -> None:
    """A table for each unit of analysis that has numbers."""
    units = [unit for unit in UNITS if rates(metrics.get(unit))]
    if units:
        for tab, unit in zip(st.tabs([f"Per {unit}" for unit in units]), units, strict=True):
            tab.dataframe(pd.DataFrame(rates(metrics[unit])), hide_index=True, placeholder="-")
    segmentation = (metrics.get("segmentation") or {}).get("summary") or {}
    if segmentation:
        st.markdown("##### Segmentation")
        st.dataframe(
            pd.DataFrame([{"metric": name, **flat(value)} for name, value in segmentation.items()]), hide_index=True, placeholder="-"
        )


def rates(unit: object) -> list[dict[str, object]]:
    """Rows of a unit's metrics that have a value."""
    if not isinstance(unit, dict):
        return []
    return [{"metric": name, **flat(value)} for name, value in unit.items() if isinstance(value, dict) and "value" in value]


def flat(metric: object) -> dict[str, object]:
    """One metric as cells of a row."""
    if not isinstance(metric, dict):
        return {"value": metric}
    interval = metric.get("ci95")
    # A list of two numbers; anything else (null where n is 0) leaves the cell empty.
    shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if isinstance(interval, list) and None not in interval else ""
    cells = {name: value for name, value in metric.items() if name != "ci95" and not isinstance(value, dict | list)}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in cells.items()} | {"95 % interval": shown}


def show_rejected(results: Results) -> None:
    """Scans without a score, with the reason codes of intake."""
    rejected = results.rejected
    st.markdown(f"##### Rejected scans: {len(rejected)} of {len(results.table)}")
    if rejected.empty:
        st.caption("Every scan that was found has a score.")
        return
    st.dataframe(rejected[["scan_id", "warnings"]].rename(columns={"scan_id": "scan", "warnings": "reasons"}), hide_index=True)
    st.caption("Run `medssl check FOLDER` for the details; the reason codes are explained in docs/intake.md.")


def show_run(results: Results) -> None:
    """Which model and versions made these results."""
    names = ("model_id", "task", "level", "config_hash", "split", "started", "finished")
    told = [f"{name.replace('_', ' ')}: {results.run[name]}" for name in names if results.run.get(name)]
    versions = [f"{name} {version}" for name, version in (results.run.get("versions") or {}).items()]
    if told:
        st.caption(" · ".join(told + versions))
