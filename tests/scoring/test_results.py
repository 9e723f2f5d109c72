import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.cells import plain
from medssl.errors import ConflictError, ManifestError
from medssl.scoring.finding import Finding, LesionFinding
from medssl.scoring.predictor import Result
from medssl.scoring.results import ResultsFolder, table
from medssl.volume import Volume

LESION = LesionFinding((1.0, 2.0, 3.0), (1.0, 2.0, 1.0), 0.5, 4, 0.9)
FINDING = Finding("a", "scored", "a.nii.gz", "MR", False, (4, 4, 2), (1.0, 1.0, 3.0), 0.9, 0.5, "positive", (0.1, 0.9), (LESION,), "m1")


def scored(finding: Finding) -> Result:
    image = Volume(np.arange(32, dtype=np.int16).reshape(1, 4, 4, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
    return Result(finding, image, np.zeros((4, 4, 2), np.float32), np.ones((4, 4, 2), np.uint8))


def test_a_finding_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(FINDING.to_json())
    assert Finding.read(tmp_path / "a.json") == FINDING


@pytest.mark.parametrize("content", ["", "[]", "{}", FINDING.to_json().replace('"a"', '"b"')])
def test_a_scan_with_a_damaged_finding_is_not_done_and_its_file_is_named(tmp_path: Path, content: str) -> None:
    results = ResultsFolder(tmp_path, "m1")
    results.add(scored(FINDING))
    assert results.has("a")
    (tmp_path / "scans" / "a.json").write_text(content)
    assert not results.has("a")
    with pytest.raises(ManifestError, match=r"scans/a.json is damaged"):
        results.findings()


def test_another_model_is_refused_with_exit_code_3(tmp_path: Path) -> None:
    ResultsFolder(tmp_path, "m1").open({})
    with pytest.raises(ConflictError, match="belongs to model m1") as caught:
        ResultsFolder(tmp_path, "m2").open({})
    assert caught.value.exit_code == 3


def test_going_on_keeps_the_time_of_the_first_start(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path, "m1")
    for started in ("2026-01-01", "2026-01-02"):
        folder.open({"started": started})
    assert json.loads((tmp_path / "run.json").read_text())["started"] == "2026-01-01"


def test_maps_share_the_affine_of_the_scan(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    image = Volume(np.arange(32, dtype=np.int16).reshape(1, 4, 4, 2), affine)
    results = ResultsFolder(tmp_path, "m1")
    results.open({})
    results.add(Result(FINDING, image, np.zeros((4, 4, 2), np.float32), np.ones((4, 4, 2), np.uint8)))
    for kind in ("image", "probability", "mask"):
        np.testing.assert_allclose(nib.load(tmp_path / "maps" / f"a_{kind}.nii.gz").affine, affine)
    assert results.has("a")


def test_the_table_is_rebuilt_from_the_findings(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path, "m1")
    results.open({})
    results.record(FINDING)
    assert results.finish({}) == {"scored": 1}
    assert (tmp_path / "results.csv").read_text().splitlines()[1] == "a,scored,0.9,0.5,positive,1,0.5,m1,"
    assert json.loads((tmp_path / "run.json").read_text())["counts"] == {"scored": 1}


def test_no_cell_of_a_table_is_a_formula_and_each_is_read_as_it_was() -> None:
    row = {"scan_id": "a", "site": '=HYPERLINK("http://x")', "vendor": "@SUM(1)", "age": 61, "sex": ""}
    (cells,) = csv.DictReader(io.StringIO(table(row, [row]), newline=""))
    assert not [cell for cell in cells.values() if cell.startswith(("=", "@"))]
    assert {name: plain(cell) for name, cell in cells.items()} == {name: str(value) for name, value in row.items()}


def test_a_rejected_scan_and_one_without_its_image_are_scored_again(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path, "m")
    results.add(scored(FINDING))
    results.record(replace(FINDING, scan_id="b", status="rejected"))
    assert (results.has("a"), results.has("b")) == (True, False)
    (tmp_path / "maps" / "a_image.nii.gz").unlink()
    assert not results.has("a")


@pytest.mark.parametrize("changed", [{"split": "val"}, {"scans_sha256": "2"}])
def test_a_folder_of_other_scans_is_not_gone_on_with(tmp_path: Path, changed: dict[str, str]) -> None:
    facts = {"split": "test", "scans_sha256": "1"}
    ResultsFolder(tmp_path, "m").open(facts)
    ResultsFolder(tmp_path, "m").open(facts)
    with pytest.raises(ConflictError, match="holds findings of other scans, masks or another split"):
        ResultsFolder(tmp_path, "m").open({**facts, **changed})
