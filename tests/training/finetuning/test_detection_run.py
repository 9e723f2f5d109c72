"""A detector from its configuration to the report."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medssl.cli import main
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.bundle import Bundle
from medssl.training.launch import launch_finetune


def config(tmp_path: Path, store: Path, dims: int, **labels: str) -> list[str]:
    encoder = {"spatial_dims": dims, "in_channels": 1, "stage_widths": [8, 16], "stage_blocks": [1, 1]}
    settings = {
        "network": {
            "class_path": "medssl.models.detector.CentreDetector",
            "init_args": {
                "width": 8,
                "encoder": {"class_path": "medssl.models.residual_encoder.ResidualEncoder", "init_args": encoder},
            },
        },
        "feed": {"store": str(store), "crops": {"size": [16, 16, 4][:dims]}, "batch_size": 4},
        "training": {"steps": 60, "checkpoint_steps": 60, "learning_rate": 0.01, "precision": "32-true"},
        "labels": labels,
    }
    path = tmp_path / "detect.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_detector_is_trained_locked_scored_and_reported(tmp_path: Path, store: Path, dims: int) -> None:
    bundle = launch_finetune([*config(tmp_path, store, dims), "--out", str(tmp_path / "run")])
    assert bundle.kind == "detection"
    assert bundle.operating_points["lesion"]["rule"] == "f1"
    results, files = tmp_path / "results", _files(store, tmp_path / "files")
    assert main(["score", str(tmp_path / "run" / "bundle"), str(files / "scans"), "--out", str(results)]) == 0
    assert main(["report", str(results), "--reference", str(files / "reference.csv")]) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["lesion"]["n"] == 1
    assert metrics["lesion"]["counts"]["found"] == 1
    assert "centre lies in" in metrics["froc"]["rule"]
    assert metrics["segmentation"]["per_scan"] == []


def _files(store: Path, folder: Path) -> Path:
    """The validation scans of a store as files, with their masks and the table of the truth."""
    opened, lines = Store(store), ["scan_id,label,lesion"]
    for part in ("scans", "masks"):
        (folder / part).mkdir(parents=True)
    for row in opened.manifest.split("val"):
        name, mask = f"{row.scan_id}.nii.gz", opened.lesion(row)
        assert mask is not None
        nib.save(nib.Nifti1Image(opened.image(row)[0].astype(np.float32), np.eye(4)), folder / "scans" / name)
        nib.save(nib.Nifti1Image(mask[0], np.eye(4)), folder / "masks" / name)
        lines.append(f"{row.scan_id},{row.has_lesion},masks/{name}")
    (folder / "reference.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_best_rate_of_false_positives_is_a_setting(tmp_path: Path, store: Path) -> None:
    arguments = [*config(tmp_path, store, 2, lesion_rule="fp <= 1"), "--training.steps", "1", "--out", str(tmp_path / "run")]
    launch_finetune(arguments)
    assert Bundle.read(tmp_path / "run" / "bundle").operating_points["lesion"]["rule"] == "fp <= 1"


def test_an_unknown_rule_of_lesions_is_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="rule of lesions 'best' is unknown"):
        launch_finetune([*config(tmp_path, store, 2, lesion_rule="best"), "--out", str(tmp_path / "run")])


def test_a_detector_is_not_cross_validated(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="no cross-validation"):
        launch_finetune([*config(tmp_path, store, 2), "--folds", "{count: 2}", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("protocol", ["linear", "knn", "auto"])
def test_a_protocol_without_boxes_is_refused(tmp_path: Path, store: Path, protocol: str) -> None:
    with pytest.raises(ConfigError, match="has no boxes"):
        launch_finetune([*config(tmp_path, store, 2), "--protocol", protocol, "--out", str(tmp_path / "run")])
