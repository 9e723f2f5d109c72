"""A tiny results folder: three scored scans, one rejected one."""

import csv
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from medssl.scoring.finding import Finding, LesionFinding

APP = Path(__file__).resolve().parents[2] / "app" / "review.py"
SHAPE = (8, 8, 6)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SCORES = {"case_a": 0.9, "case_b": 0.6, "case_c": 0.1}
LABELS = {"case_a": "1", "case_b": "0", "case_c": "0"}


def save_map(folder: Path, name: str, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), folder / "maps" / f"{name}.nii.gz")


def write_scan(folder: Path, scan_id: str, score: float) -> dict[str, object]:
    # Each scan has grey values of its own range, as scans of different machines do.
    noise = (np.random.default_rng(0).normal(100, 10, SHAPE) * (1 + score)).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    lesions = ()
    if score >= 0.5:
        mask[2:5, 2:5, 3:5] = 1
        lesions = (LesionFinding(centre_mm=(6.0, 6.0, 10.5), centre_voxel=(3.0, 3.0, 3.5), volume_ml=0.216, voxels=18, score=score),)
    probability = (mask * score).astype(np.float32)
    for kind, array in (("image", noise + 60 * mask), ("probability", probability), ("mask", mask), ("lesion", mask)):
        save_map(folder, f"{scan_id}_{kind}", array)
    finding = Finding(
        scan_id=scan_id,
        status="scored",
        source=f"{scan_id}.nii.gz",
        modality="MR",
        nominal=False,
        shape=SHAPE,
        spacing_mm=(2.0, 2.0, 3.0),
        score=score,
        threshold=0.5,
        verdict="positive" if score >= 0.5 else "negative",
        slice_scores=(0.0, 0.1, 0.2, 0.3, score, 0.05),
        lesions=lesions,
        model_id="model0123456789",
    )
    (folder / "scans" / f"{scan_id}.json").write_text(finding.to_json())
    return finding.row()


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for part in ("scans", "maps"):
        (folder / part).mkdir(parents=True)
    rows = [write_scan(folder, scan_id, score) for scan_id, score in SCORES.items()]
    empty = dict.fromkeys(rows[0], "")
    rows.append({**empty, "scan_id": "case_d", "status": "rejected", "warnings": "missing_slice"})
    write_table(folder / "results.csv", rows)
    truth = [{"scan_id": name, "patient": name, "site": "north" if name == "case_a" else "south", "label": LABELS[name]} for name in LABELS]
    write_table(folder / "reference.csv", truth)
    point = {"threshold": 0.5, "rule": "sensitivity >= 0.9", "chosen_on": "validation", "n": 12, "locked_at": "2026-01-01"}
    (folder / "run.json").write_text(json.dumps({"model_id": "model0123456789", "operating_points": {"scan": point}}))
    return folder


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch):
    """A function that opens the app on a folder, as `streamlit run app/review.py -- FOLDER` does."""
    st.cache_data.clear()
    st.cache_resource.clear()

    def start(folder: Path | None, **address: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["review.py"] if folder is None else ["review.py", str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in address.items():
            app.query_params[name] = value
        return app.run()

    return start
