import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.prepare import prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.errors import ConflictError, ManifestError


def save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 4.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten patients, half with a lesion, from two sites."""
    root, generator = tmp_path / "scans", np.random.default_rng(0)
    table = [["patient", "site", "image", "lesion", "label"]]
    for number in range(10):
        image = generator.integers(50, 200, (8, 8, 4)).astype(np.int16)
        save(root / f"p{number}" / "image.nii.gz", image)
        lesion = np.zeros((8, 8, 4), np.uint8)
        lesion[2:4, 2:4, 1] = number % 2
        save(root / f"p{number}" / "lesion.nii.gz", lesion)
        table.append([f"p{number}", "AB"[number % 3 == 0], f"p{number}/image.nii.gz", f"p{number}/lesion.nii.gz", ""])
    with (root / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows([row[:4] for row in table])
    return root


def test_every_scan_lands_in_the_store_with_its_mask(folder: Path, tmp_path: Path) -> None:
    manifest, rejected = prepare(folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    assert (len(manifest.rows), rejected) == (10, 0)
    for row in store.manifest.rows:
        lesion = store.lesion(row)
        assert lesion is not None
        assert int(lesion[:].sum()) == 4 * int(row.has_lesion)
        assert store.image(row).shape == (1, 8, 8, 4)


def test_the_spacing_is_planned_and_thick_slices_are_kept(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    assert Store(tmp_path / "store").preprocess == Preprocess(spacing_mm=(1.0, 1.0, 0.0))


def test_sites_are_kept_and_patients_split(folder: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(folder, tmp_path / "store")
    assert {row.site for row in manifest.rows} == {"A", "B"}
    assert {row.split for row in manifest.rows} == {"train", "val", "test"}


def test_a_damaged_scan_is_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    path = folder / "p3" / "image.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    manifest, rejected = prepare(folder, tmp_path / "store")
    assert (len(manifest.rows), rejected) == (9, 1)
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["reasons"] for scan in scans if scan["status"] == "rejected"] == [["truncated"]]


def test_a_mask_of_another_shape_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    save(folder / "p3" / "lesion.nii.gz", np.zeros((8, 8, 5), np.uint8))
    prepare(folder, tmp_path / "store")
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["reasons"] for scan in scans if scan["status"] == "rejected"] == [["label_mismatch"]]


def test_nothing_is_done_twice(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "arrays").iterdir()}
    prepare(folder, tmp_path / "store")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "arrays").iterdir()} == before


def test_a_store_of_another_preprocessing_is_not_mixed(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    with pytest.raises(ConflictError, match="another preprocessing"):
        prepare(folder, tmp_path / "store", preprocess=Preprocess(spacing_mm=(2.0, 2.0, 0.0)))


def test_a_folder_without_a_usable_scan_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ManifestError, match="no usable scan"):
        prepare(tmp_path / "scans", tmp_path / "store")
    assert not (tmp_path / "store").exists()
