import logging
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.preprocess import Preprocess
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from medssl.scoring.finding import Finding
from medssl.scoring.folder import score_folder
from medssl.scoring.predictor import Predictor, Result


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    network = ResidualUNet(widths=(2, 4))
    points: dict[str, dict[str, object]] = {"scan": {"threshold": 0.5}}
    Bundle("segmentation", network.architecture(), Preprocess(), Window((8, 8), flips=False), operating_points=points).write(
        tmp_path / "bundle", network, ""
    )
    return Predictor(tmp_path / "bundle")


@pytest.fixture
def scored(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Scores `scans` into `results` and gives the sources that were scored."""
    sources: list[str] = []
    score = predictor.score

    def noted(*arguments: object, source: str, **more: object) -> Result:
        sources.append(source)
        return score(*arguments, source=source, **more)  # type: ignore[arg-type]

    def run() -> list[str]:
        sources.clear()
        score_folder(predictor, tmp_path / "scans", tmp_path / "results")
        return list(sources)

    monkeypatch.setattr(predictor, "score", noted)
    return run


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 100, (8, 8, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 3, 1])), path)


def found(results: Path) -> dict[str, str]:
    findings = [Finding.read(path) for path in (results / "scans").iterdir()]
    return {finding.scan_id: finding.source for finding in findings}


def test_a_scan_whose_file_is_that_of_then_is_not_scored_again(scored: Callable[[], list[str]], tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.nii.gz", 1)
    assert [scored(), scored()] == [["a.nii.gz"], []]


def test_a_scan_that_was_replaced_is_scored_again_though_size_and_time_are_kept(scored: Callable[[], list[str]], tmp_path: Path) -> None:
    path = tmp_path / "scans" / "a.nii"
    save(path, 1)
    facts = path.stat()
    scored()
    before = (tmp_path / "results" / "scans" / "a.json").read_text()
    save(path, 2)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    assert scored() == ["a.nii"]
    assert (tmp_path / "results" / "scans" / "a.json").read_text() != before


def test_another_file_behind_an_id_is_scored(scored: Callable[[], list[str]], tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.nii.gz", 1)
    scored()
    save(tmp_path / "scans" / "a.nii", 2)
    assert scored() == ["a.nii", "a.nii.gz"]
    assert found(tmp_path / "results") == {"a": "a.nii", "a-2": "a.nii.gz"}


def test_a_finding_of_files_that_nobody_remembers_is_made_again(scored: Callable[[], list[str]], tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.nii.gz", 1)
    scored()
    (tmp_path / "results" / "stamps" / "a.txt").unlink()
    assert scored() == ["a.nii.gz"]


def test_findings_of_scans_that_are_gone_are_told(
    scored: Callable[[], list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        save(tmp_path / "scans" / f"{name}.nii.gz", ord(name))
    scored()
    (tmp_path / "scans" / "b.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        scored()
    assert caplog.messages == ["results keeps findings of scans that are not in scans: 1"]


def test_maps_of_an_earlier_run_inside_the_folder_are_not_scored(predictor: Predictor, tmp_path: Path) -> None:
    for number, out in enumerate(("scans/results", "scans", ".")):
        folder = tmp_path / f"case{number}" / "scans"
        folder.mkdir(parents=True)
        save(folder / "a.nii.gz", 0)
        assert [score_folder(predictor, folder, folder.parent / out)["scored"] for _ in range(2)] == [1, 1]
