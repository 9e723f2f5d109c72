import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.preprocess import Preprocess
from medssl.errors import ScanError, UsageError
from medssl.evaluation.calibration import tempered
from medssl.models.bundle import Bundle
from medssl.models.heads import Classifier
from medssl.models.inference import Window
from medssl.models.outputs import Outputs
from medssl.models.residual_unet import ResidualUNet
from medssl.models.vit import ViT
from medssl.scoring.finding import Finding
from medssl.scoring.predictor import Predictor
from medssl.volume import Volume

POINTS = {"scan": {"threshold": 0.4}, "voxel": {"threshold": 0.5, "min_voxels": 2}}


def write(folder: Path, network: torch.nn.Module, kind: str) -> Path:
    assert isinstance(network, (ResidualUNet, ViT))
    Bundle(kind, network.architecture(), Preprocess(), Window((8, 8), flips=False), operating_points=POINTS).write(folder, network, "")
    return folder


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A predictor whose network marks bright voxels."""
    predictor = Predictor(write(tmp_path / "bundle", ResidualUNet(widths=(2, 4)), "segmentation"))
    monkeypatch.setattr(predictor.network, "forward", lambda images: images * 10 - 20)
    return predictor


def bright(shape: tuple[int, int, int] = (8, 8, 4)) -> Volume:
    array = np.random.default_rng(0).normal(100, 1, (1, *shape)).astype(np.float32)
    array[0, 2:5, 3:6, 1] = 120  # nine voxels
    array[0, 7, 7, 3] = 120  # a speck
    return Volume(array, np.diag([1.0, 1.0, 2.0, 1.0]))


def test_a_lesion_has_its_place_and_volume_in_millimetres(predictor: Predictor) -> None:
    lesion = predictor.score(bright(), scan_id="a", source="a").finding.lesions[0]
    assert lesion.centre_mm == (3.0, 4.0, 2.0)
    assert lesion.voxels == 9
    assert lesion.volume_ml == pytest.approx(9 * 2 / 1000)


def test_specks_below_the_locked_size_are_dropped(predictor: Predictor) -> None:
    result = predictor.score(bright(), scan_id="a", source="a")
    assert len(result.finding.lesions) == 1
    assert result.mask is not None
    assert result.mask.sum() == 9


def test_the_verdict_follows_the_locked_threshold(predictor: Predictor) -> None:
    finding = predictor.score(bright(), scan_id="a", source="a").finding
    assert finding.threshold == 0.4
    assert finding.verdict == "positive"
    assert finding.score == max(finding.slice_scores)


def test_a_scan_stored_in_another_orientation_gives_the_same_finding(predictor: Predictor) -> None:
    scan = bright()
    affine = scan.affine @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = Volume(scan.array[:, ::-1].copy(), affine)
    assert predictor.score(flipped, scan_id="a", source="a").finding == predictor.score(scan, scan_id="a", source="a").finding


def test_maps_of_a_cropped_scan_lie_where_the_lesion_is(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    dark = np.zeros((1, 30, 24, 9), np.float32)
    dark[:, 11:19, 9:17, 3:7] = bright().array
    scan = Volume(dark, bright().affine)
    whole = predictor.score(scan, scan_id="a", source="a")
    monkeypatch.setattr(predictor, "bundle", replace(predictor.bundle, preprocess=Preprocess(crop_foreground=True)))
    cropped = predictor.score(scan, scan_id="a", source="a")
    assert cropped.finding.lesions == whole.finding.lesions
    assert cropped.finding.lesions[0].centre_mm == (14.0, 13.0, 8.0)
    np.testing.assert_array_equal(cropped.mask, whole.mask)
    assert len(cropped.finding.slice_scores) == 9


def test_another_number_of_channels_is_refused(predictor: Predictor) -> None:
    two = Volume(np.repeat(bright().array, 2, axis=0), bright().affine)
    with pytest.raises(ScanError, match="channel_mismatch"):
        predictor.score(two, scan_id="a", source="a")


def test_an_encoder_is_no_detector(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fine-tune it"):
        Predictor(write(tmp_path / "bundle", ViT((4, 4), width=8, depth=1, heads=1), "encoder"))


def test_a_lesion_has_the_class_that_most_of_its_voxels_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = Outputs(("oedema", "core", "cyst"), positive=("core", "cyst"), background=True)
    network = ResidualUNet(classes=4, widths=(2, 4))
    bundle = Bundle(
        "segmentation", network.architecture(), Preprocess(), Window((8, 8), flips=False), ("core", "cyst"), POINTS, outputs=outputs
    )
    bundle.write(tmp_path / "bundle", network, "")
    predictor = Predictor(tmp_path / "bundle")
    levels = torch.tensor([0.0, 60.0, 120.0, 180.0]).view(1, 4, 1, 1)  # of background and classes
    monkeypatch.setattr(predictor.network, "forward", lambda images: -((images - levels) ** 2) / 100)
    monkeypatch.setattr(predictor, "bundle", replace(predictor.bundle, preprocess=Preprocess(intensity="window", window_hu=(0, 1))))
    scan = np.zeros((1, 8, 8, 4), np.float32)
    scan[0, :3, :3, 1], scan[0, 5:8, 5:8, 2], scan[0, :3, 5:8, 3] = 60, 120, 180
    prepared = Volume(scan, np.diag([1.0, 1.0, 2.0, 1.0]))
    result = predictor.score_prepared(prepared, scan_id="a", source="a")
    assert sorted(lesion.class_name for lesion in result.finding.lesions) == ["core", "cyst"]
    assert result.classes is not None
    np.testing.assert_array_equal(result.classes, np.rint(scan[0] / 60))
    assert {name: round(score, 2) for name, score in result.finding.class_scores.items()} == {"oedema": 1, "core": 1, "cyst": 1}
    assert predictor.classes.positives == ("core", "cyst")


def test_parts_that_are_small_beside_the_largest_are_left_out(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = bright()
    scan.array[0, 6:, 0, 3] = 120  # two voxels, enough for min_voxels
    assert sorted(lesion.voxels for lesion in predictor.score(scan, scan_id="a", source="a").finding.lesions) == [2, 9]
    points = {**POINTS, "voxel": {**POINTS["voxel"], "min_share": 0.5}}
    monkeypatch.setattr(predictor, "bundle", replace(predictor.bundle, operating_points=points))
    result = predictor.score(scan, scan_id="a", source="a")
    assert [lesion.voxels for lesion in result.finding.lesions] == [9]
    assert result.mask is not None and result.mask.sum() == 9


def test_a_finding_from_before_there_were_classes_is_read(predictor: Predictor, tmp_path: Path) -> None:
    finding = predictor.score(bright(), scan_id="a", source="a").finding
    fields = json.loads(finding.to_json())
    del fields["class_scores"], fields["lesions"][0]["class_name"]
    (tmp_path / "a.json").write_text(json.dumps(fields))
    assert Finding.read(tmp_path / "a.json") == finding


@pytest.mark.parametrize("scores", [(float("nan"), 0.9), (0.9, float("nan")), (float("inf"), 0.1)])
def test_scores_that_are_no_numbers_give_no_verdict(predictor: Predictor, scores: tuple[float, ...]) -> None:
    finding = predictor._judge(predictor._finding(bright(), scan_id="a", source="a", warnings=()), max(scores), scores)
    assert (finding.score, finding.verdict, finding.slice_scores, finding.warnings) == (None, "", (), ("nonfinite_scores",))
    assert finding.row()["score"] == ""


def score_of_classes(folder: Path, *, exclusive: bool, of: str | None, temperature: float = 3.0) -> Finding:
    """What a classifier of three classes, the last two positive, says of a scan at a temperature."""
    names = ("normal", "benign", "malignant")
    network = Classifier(ViT((4, 4), width=8, depth=1, heads=1), classes=3)
    weights = {"head.2.weight": torch.zeros(3, 8), "head.2.bias": torch.tensor([0.0, 1.0, 2.5])}  # the same for every slice
    network.load_state_dict(network.state_dict() | weights)
    record = {unit: {"temperature": temperature} | ({} if of is None else {"of": of}) for unit in ("scan", "slice")}
    outputs = Outputs(names, names[1:], exclusive=exclusive)
    bundle = Bundle(
        "classification", network.architecture(), Preprocess(), Window((8, 8)), names[1:], POINTS, outputs=outputs, calibration=record
    )
    bundle.write(folder, network, "")
    return Predictor(folder).score_prepared(bright(), scan_id="a", source="a").finding


def test_the_score_is_the_sum_of_the_calibrated_classes_that_are_positive(tmp_path: Path) -> None:
    finding = score_of_classes(tmp_path / "bundle", exclusive=True, of="classes")
    divided = torch.tensor([0.0, 1.0, 2.5]).div(3).softmax(dim=0).tolist()
    assert list(finding.class_scores.values()) == pytest.approx(divided, abs=1e-6)
    assert finding.score == pytest.approx(divided[1] + divided[2], abs=1e-6)
    assert finding.slice_scores == pytest.approx([finding.score] * 4)


def test_the_score_is_the_highest_of_the_calibrated_labels_that_are_positive(tmp_path: Path) -> None:
    finding = score_of_classes(tmp_path / "bundle", exclusive=False, of="each class")
    divided = torch.tensor([0.0, 1.0, 2.5]).div(3).sigmoid().tolist()
    assert list(finding.class_scores.values()) == pytest.approx(divided, abs=1e-6)
    assert finding.score == pytest.approx(divided[2], abs=1e-6)


def test_a_bundle_from_before_class_scores_were_calibrated_scores_as_it_did(tmp_path: Path) -> None:
    finding = score_of_classes(tmp_path / "bundle", exclusive=True, of=None)
    plain = torch.tensor([0.0, 1.0, 2.5]).softmax(dim=0).tolist()
    assert list(finding.class_scores.values()) == pytest.approx(plain, abs=1e-6)
    assert finding.score == pytest.approx(float(tempered(plain[1] + plain[2], 3.0)), abs=1e-6)
