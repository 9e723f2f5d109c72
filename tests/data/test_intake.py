"""What reading one row of the layout gives."""

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data import stamp
from medssl.data.intake import Intake, Reading, read_row, take_in
from medssl.data.manifest import ManifestRow
from medssl.errors import ScanError
from medssl.io.options import ReadOptions, Units
from medssl.phantom import make_cohort
from tests.data.conftest import picture, save


def take(folder: Path, image: str, lesion: str = "") -> Intake:
    return take_in(Reading(folder, folder / "store", ManifestRow("scan", "p", image, lesion=lesion)))


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as left alone at once."""
    monkeypatch.setattr(stamp, "_RACE_NS", 0)


def test_channels_of_two_places_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "flair.nii.gz", picture(0))
    save(tmp_path / "t1.nii.gz", picture(1), spacing=(1.0, 1.0, 5.0))
    with pytest.raises(ScanError, match="channel_mismatch"):
        read_row(tmp_path, ManifestRow("scan", "p", "flair.nii.gz;t1.nii.gz"))
    save(tmp_path / "t1.nii.gz", picture(1))
    assert read_row(tmp_path, ManifestRow("scan", "p", "flair.nii.gz;t1.nii.gz"))[0].array.shape == (2, 24, 24, 6)


def test_warnings_of_a_scan_and_its_mask_are_kept_and_remembered(tmp_path: Path) -> None:
    values = picture(0).astype(np.float32)
    values[0, 0, 0] = np.nan
    save(tmp_path / "image.nii.gz", values)
    save(tmp_path / "soft.nii.gz", np.linspace(0, 1, values.size, dtype=np.float32).reshape(values.shape))
    for _ in ("read", "remembered"):
        found = take(tmp_path, "image.nii.gz", "soft.nii.gz")
        assert (found.status, found.warnings) == ("accepted_with_warning", ("nonfinite_voxels", "mask_not_whole"))


def test_the_format_is_that_of_the_content(tmp_path: Path) -> None:
    make_cohort(tmp_path / "made", patients=4, shape=(16, 16, 6), seed=3)
    folder = next(path for path in (tmp_path / "made").rglob("flair") if path.is_dir())
    folder.rename(tmp_path / "1.3.6.1.77")
    found = take(tmp_path, "1.3.6.1.77")
    assert (found.as_record()["format"], bool(found.row.vendor)) == ("dicom", True)
    save(tmp_path / "bad.nii.gz", picture(0))
    (tmp_path / "bad.nii.gz").write_bytes((tmp_path / "bad.nii.gz").read_bytes()[:-9])
    assert (take(tmp_path, "bad.nii.gz").as_record()["format"], take(tmp_path, "absent").as_record()["format"]) == ("nifti", "unknown")


def test_the_distance_of_slices_is_along_the_axis_that_they_were_stacked_on(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 6.0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 1]])  # sagittal
    image = nib.Nifti1Image(picture(0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "image.nii.gz")
    assert take(tmp_path, "image.nii.gz").row.slice_mm == "6"


def test_voxels_in_a_file_of_their_own_are_watched(tmp_path: Path) -> None:
    values = picture(0)
    header = ["NRRD0004", "type: short", "dimension: 3", "space: right-anterior-superior", f"sizes: {' '.join(map(str, values.shape))}"]
    header += ["space directions: (1,0,0) (0,1,0) (0,0,4)", "space origin: (0,0,0)", "encoding: raw", "endian: little", "data file: x.raw"]
    (tmp_path / "x.nrrd").write_text("\n".join([*header, "", ""]))
    (tmp_path / "x.raw").write_bytes(values.tobytes(order="F"))
    before = take(tmp_path, "x.nrrd")
    time.sleep(0.02)
    (tmp_path / "x.raw").write_bytes(picture(1).tobytes(order="F"))
    after = take(tmp_path, "x.nrrd")
    assert (before.refusal, after.refusal) == ("", "")
    assert before.row.sha256 != after.row.sha256


@pytest.mark.parametrize(("units", "nominal"), [("stored", True), ("mm", False)])
def test_unknown_units_are_nominal_or_millimetres(tmp_path: Path, units: Units, nominal: bool) -> None:
    nib.save(nib.Nifti1Image(picture(0), np.diag([3, 3, 3, 1])), tmp_path / "image.nii.gz")
    image, _ = read_row(tmp_path, ManifestRow("scan", "p", "image.nii.gz"), ReadOptions(units=units))
    assert (image.nominal, image.spacing_mm) == (nominal, (3, 3, 3))


def test_a_reading_is_json(tmp_path: Path) -> None:
    save(tmp_path / "image.nii.gz", picture(0))
    assert json.loads(json.dumps(take(tmp_path, "image.nii.gz").as_record()))["status"] == "accepted"
