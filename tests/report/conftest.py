"""A results folder made here: scans of two sites with a bright ball as lesion, one scan rejected."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.scoring.finding import Finding, LesionFinding

SHAPE = (24, 20, 8)
AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])


def ball(centre, radius, shape=SHAPE):
    grid = np.indices(shape).reshape(3, -1).T
    return (((grid - centre) * (1, 1, 2)) ** 2).sum(axis=1).reshape(shape) <= radius**2


@dataclass
class ResultsBuilder:
    """Writes a results folder scan by scan."""

    folder: Path
    nominal: bool = False

    def __post_init__(self):
        for part in ("scans", "maps"):
            (self.folder / part).mkdir(parents=True)
        self.truth = []

    def add(
        self, scan_id, *, score, label=None, patient="", site="", shift=0, maps=True, shape=SHAPE, warnings=(), slice_scores=None, **facts
    ):
        truth = ball((10, 9, 4), 4, shape) if label == 1 else np.zeros(shape, bool)
        mask = ball((10 + shift, 9, 4), 4, shape) if score is not None and score >= 0.5 else np.zeros(shape, bool)
        scores = slice_scores if slice_scores is not None else [score or 0.0 if mask[:, :, k].any() else 0.05 for k in range(shape[2])]
        self.write(scan_id, score, mask, scores, warnings)
        if maps:
            noise = np.random.default_rng(len(self.truth)).normal(100, 10, shape)
            self.save(scan_id, "image", (noise + 60 * truth).astype(np.int16))
            self.save(scan_id, "mask", mask.astype(np.uint8))
            self.save(scan_id, "probability", (mask * (score or 0)).astype(np.float32))
        if maps and label is not None:
            self.save(scan_id, "lesion", truth.astype(np.uint8))
        lesion = f"maps/{scan_id}_lesion.nii.gz" if maps and label is not None else ""
        row = {"scan_id": scan_id, "patient": patient, "site": site, "label": "" if label is None else label, "lesion": lesion}
        self.truth.append(row | {"split": "test"} | facts)

    def write(self, scan_id, score, mask, slice_scores, warnings):
        voxels = int(mask.sum())
        lesion = LesionFinding((20.0, 18.0, 16.0), (10.0, 9.0, 4.0), voxels * 0.016, voxels, score or 0.0)
        finding = Finding(
            scan_id=scan_id,
            status="scored",
            source=f"{scan_id}.nii.gz",
            modality="MR",
            nominal=self.nominal,
            shape=mask.shape,
            spacing_mm=(2.0, 2.0, 4.0),
            score=score,
            threshold=0.5,
            verdict="positive" if score is not None and score >= 0.5 else "negative",
            slice_scores=tuple(slice_scores),
            lesions=(lesion,) if voxels else (),
            model_id="model0123456789",
            warnings=tuple(warnings),
        )
        self.last = finding
        (self.folder / "scans" / f"{scan_id}.json").write_text(finding.to_json())

    def reject(self, scan_id, *codes, label=None):
        self.write(scan_id, None, np.zeros(SHAPE, bool), (), codes)
        rejected = replace(self.last, status="rejected", shape=None, spacing_mm=None, threshold=None, verdict="", nominal=False)
        (self.folder / "scans" / f"{scan_id}.json").write_text(rejected.to_json())
        row = {"scan_id": scan_id, "patient": scan_id, "site": "", "label": "" if label is None else label, "lesion": "", "split": "test"}
        self.truth.append(row)

    def save(self, scan_id, kind, array):
        nib.save(nib.Nifti1Image(array, AFFINE), self.folder / "maps" / f"{scan_id}_{kind}.nii.gz")

    def finish(self, *, reference=True, **run):
        scan = {"unit": "scan", "threshold": 0.5, "rule": "youden", "chosen_on": "validation", "locked_at": "2026-01-01T00:00:00+00:00"}
        points = {"scan": scan | {"n": 40, "n_positive": 18}, "slice": scan | {"unit": "slice"}, "voxel": scan | {"unit": "voxel"}}
        times = {"started": "2026-01-02T00:00:00+00:00", "finished": "2026-01-02T01:00:00+00:00"}
        facts = {"model_id": "model0123456789", **times, "operating_points": points, "nominal": self.nominal}
        (self.folder / "run.json").write_text(json.dumps(facts | {"versions": {"medssl": "0.1", "torch": "2.13"}, "split": "test"} | run))
        if reference:
            self.write_reference(self.folder / "reference.csv")
        return self.folder

    def write_reference(self, path):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in self.truth for name in row)), restval="")
            writer.writeheader()
            writer.writerows(self.truth)


@pytest.fixture
def builder(tmp_path):
    return ResultsBuilder(tmp_path / "results")


@pytest.fixture
def builder_of(tmp_path):
    """A function that gives a builder of another results folder by its name."""
    return lambda name: ResultsBuilder(tmp_path / name)


@pytest.fixture
def cohort(builder):
    """16 scans of 14 patients: 8 with lesion (2 missed), 8 without (1 false alarm); one more rejected."""
    lesion_scores = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.4, 0.2]
    clear_scores = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.8]
    for index, score in enumerate(lesion_scores):
        builder.add(f"pos_{index}", score=score, label=1, patient=f"p{index // 2 if index < 4 else index}", site="north", shift=index % 3)
    for index, score in enumerate(clear_scores):
        builder.add(f"neg_{index}", score=score, label=0, patient=f"n{index}", site="south")
    builder.reject("bad_0", "missing_slice", label=1)
    return builder
