import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.preprocess import Preprocess
from medssl.models.bundle import Bundle
from medssl.models.detection import Box
from medssl.models.detector import CentreDetector
from medssl.models.inference import Window
from medssl.models.residual_encoder import ResidualEncoder
from medssl.scoring.boxes import lesion_of
from medssl.scoring.finding import Finding, LesionFinding
from medssl.scoring.predictor import Predictor
from medssl.volume import Volume

POINTS = {"scan": {"threshold": 0.4}, "lesion": {"threshold": 0.3}}


def finding(*lesions: LesionFinding) -> Finding:
    return Finding("a", "scored", "a", "MR", False, (4, 4, 4), (1, 1, 1), 0.5, 0.5, "positive", (0.5,), lesions, "m")


def test_a_box_is_carried_to_the_grid_of_the_scan_and_to_millimetres() -> None:
    scan = Volume(np.zeros((1, 20, 20, 10), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    prepared = Preprocess(spacing_mm=(2.0, 2.0, 3.0))(scan)
    lesion = lesion_of(Box((2.0, 3.0, 4.0), (2.0, 4.0, 1.0), 0.7), prepared, scan)
    assert lesion.centre_voxel == (4.5, 6.5, 4.0)
    assert lesion.box_voxel == ((2.5, 2.5, 3.5), (6.5, 10.5, 4.5))
    assert lesion.box_mm == ((2.5, 2.5, 10.5), (6.5, 10.5, 13.5))
    assert lesion.voxels == round(np.pi / 6 * 4 * 8)


def test_a_finding_with_boxes_is_read_back(tmp_path: Path) -> None:
    written = finding(LesionFinding((1, 1, 1), (1, 1, 1), 0.1, 5, 0.5, box_voxel=((0, 0, 0), (2, 2, 2)), box_mm=((0, 0, 0), (2, 2, 2))))
    (tmp_path / "a.json").write_text(written.to_json())
    assert Finding.read(tmp_path / "a.json") == written


def test_a_finding_without_boxes_is_read(tmp_path: Path) -> None:
    fields = asdict(finding(LesionFinding((1, 1, 1), (1, 1, 1), 0.1, 5, 0.5)))
    for name in ("box_voxel", "box_mm"):
        del fields["lesions"][0][name]
    (tmp_path / "a.json").write_text(json.dumps(fields))
    assert Finding.read(tmp_path / "a.json").lesions[0].box_mm is None


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A detector that says of every bright voxel that a lesion of two voxels has its centre there."""
    encoder = ResidualEncoder(spatial_dims=3, in_channels=1, stage_widths=(4, 4), stage_blocks=(1, 1))
    network = CentreDetector(encoder, level=0, width=4)
    window = Window((8, 8, 4), flips=False, foreground=False)
    Bundle("detection", network.architecture(), Preprocess(), window, operating_points=POINTS).write(tmp_path / "bundle", network, "")
    predictor = Predictor(tmp_path / "bundle")

    def say(images: torch.Tensor) -> torch.Tensor:
        size = torch.full_like(images.expand(-1, 3, *images.shape[2:]), 2.0)
        return torch.cat([images - 4, size, torch.full_like(size, 0.5)], dim=1)

    monkeypatch.setattr(predictor.network, "forward", say)
    return predictor


def test_a_detector_gives_lesions_with_boxes_and_the_highest_peak_as_score(predictor: Predictor) -> None:
    array = np.random.default_rng(0).normal(0, 0.01, (1, 12, 12, 6)).astype(np.float32)
    array[0, 3, 4, 2], array[0, 9, 9, 5], array[0, 1, 10, 0] = 40, 8, 6
    result = predictor.score(Volume(array, np.diag([1.0, 1.0, 2.0, 1.0])), scan_id="a", source="a")
    lesion = result.finding.lesions[0]
    assert (lesion.centre_voxel, lesion.centre_mm) == ((3.0, 4.0, 2.0), (3.0, 4.0, 4.0))
    assert lesion.box_voxel == ((2.0, 3.0, 1.0), (4.0, 5.0, 3.0))
    assert result.finding.score == lesion.score == max(result.finding.slice_scores)
    assert result.finding.verdict == "positive"
    assert all(one.score >= 0.3 for one in result.finding.lesions)
    assert result.mask is None
