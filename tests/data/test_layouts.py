"""Scans, masks and patients from the way a folder is laid out."""

import shutil
from pathlib import Path

import pydicom
import pytest

from medssl.data.layouts import detect, find_layout
from medssl.errors import ManifestError, UsageError
from medssl.phantom import make_cohort

SHARED = Path(__file__).resolve().parents[3] / "shared"


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_table_in_the_root_rules(tmp_path: Path) -> None:
    make(tmp_path, "a/flair.nii.gz", "sub-1/anat/sub-1_FLAIR.nii.gz")
    (tmp_path / "patients.csv").write_text("patient,site,image,lesion,slices\nP1,S,a/flair.nii.gz,,3\n")
    assert [(row.image, row.patient, row.site) for row in find_layout(tmp_path)] == [("a/flair.nii.gz", "P1", "S")]


def test_a_table_without_images_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a/flair.nii.gz")
    (tmp_path / "patients.csv").write_text("patient,age\nP1,50\n")
    assert detect(tmp_path) == "plain"


def test_bids_gives_the_mask_to_the_sequence_it_was_drawn_on(tmp_path: Path) -> None:
    make(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_lesion-mask.nii.gz",
        "derivatives/prep/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\tgroup\nsub-01\t50\tF\tpatient\n")
    rows = {row.image: row for row in find_layout(tmp_path)}
    assert rows["sub-01/anat/sub-01_FLAIR.nii.gz"].lesion.endswith("sub-01_lesion-mask.nii.gz")
    assert rows["sub-01/anat/sub-01_T1w.nii.gz"].lesion == ""
    assert {(row.patient, row.age, row.sex, row.label) for row in rows.values()} == {("sub-01", "50", "F", "patient")}
    assert len(rows) == 2


def test_bids_keeps_sessions_apart(tmp_path: Path) -> None:
    make(tmp_path, "sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_FLAIR.nii.gz")
    make(tmp_path, "sub-1/ses-2/anat/sub-1_ses-2_FLAIR_mask.nii.gz")
    assert [bool(row.lesion) for row in find_layout(tmp_path)] == [False, True]
    assert {row.patient for row in find_layout(tmp_path)} == {"sub-1"}


def test_nnunet_joins_channels_and_finds_labels(tmp_path: Path) -> None:
    make(tmp_path, "imagesTr/c1_0000.nii.gz", "imagesTr/c1_0001.nii.gz", "labelsTr/c1.nii.gz", "imagesTs/c2_0000.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT", "1": "CT"}}')
    first, second = find_layout(tmp_path)
    assert (first.image, first.lesion) == ("imagesTr/c1_0000.nii.gz;imagesTr/c1_0001.nii.gz", "labelsTr/c1.nii.gz")
    assert (first.patient, first.modality, second.patient, second.split) == ("c1", "CT", "c2", "")


def test_plain_takes_a_mask_beside_the_image_and_leaves_the_brain_mask(tmp_path: Path) -> None:
    make(tmp_path, "p1/flair.nii.gz", "p1/tumour.nii.gz", "p1/brainmask.nii.gz", "p2/flair.nii.gz")
    assert [(row.image, row.lesion, row.patient) for row in find_layout(tmp_path)] == [
        ("p1/flair.nii.gz", "p1/tumour.nii.gz", "p1"),
        ("p2/flair.nii.gz", "", "p2"),
    ]


def test_plain_pairs_by_name_where_patients_share_a_folder(tmp_path: Path) -> None:
    make(tmp_path, *(f"c{n}.png" for n in range(12)), "c3_mask.png", "c11_mask.png")
    lesions = {row.image: row.lesion for row in find_layout(tmp_path) if row.lesion}
    assert lesions == {"c3.png": "c3_mask.png", "c11.png": "c11_mask.png"}
    assert len({row.patient for row in find_layout(tmp_path)}) == 12


def test_plain_pairs_with_a_folder_of_masks(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    assert [(row.image, row.lesion) for row in find_layout(tmp_path)] == [("images/a.png", "masks/a.png"), ("images/b.png", "")]


def dicom_cohort(root: Path, patients: int) -> Path:
    make_cohort(root, patients=patients, shape=(16, 16, 6), seed=3)
    (root / "patients.csv").unlink()
    return root


def test_plain_takes_a_dicom_series_as_one_scan_with_the_mask_beside_it(tmp_path: Path) -> None:
    rows = find_layout(dicom_cohort(tmp_path, 8))
    series = [row for row in rows if row.image.endswith("/flair")]
    assert (len(rows), len(series), sum(bool(row.lesion) for row in series)) == (8, 4, 2)
    assert {row.modality for row in series} == {"MR"}


def test_series_of_one_patient_in_two_folders_are_one_patient(tmp_path: Path) -> None:
    series = next(dicom_cohort(tmp_path / "made", 4).glob("*/flair"))
    shutil.copytree(series, tmp_path / "data/one")
    for path in shutil.copytree(series, tmp_path / "data/two").iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = "1.2.3"
        header.SOPInstanceUID = f"1.2.3.{header.InstanceNumber}"
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(path)
    first, second = find_layout(tmp_path / "data")
    assert first.patient == second.patient
    assert "PHANTOM" not in first.patient


def test_a_lone_series_in_the_root_is_a_scan(tmp_path: Path) -> None:
    (row,) = find_layout(next(dicom_cohort(tmp_path, 4).glob("*/flair")))
    assert (row.image, row.scan_id) == (".", "scan")


def test_folders_named_by_split_give_the_split(tmp_path: Path) -> None:
    make(tmp_path, "train/p1/a.nii.gz", "test/p2/a.nii.gz")
    assert {(row.patient, row.split) for row in find_layout(tmp_path)} == {("p1", "train"), ("p2", "test")}


def test_links_are_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "data/a.nii.gz", "out/b.nii.gz")
    (tmp_path / "data/link").symlink_to(tmp_path / "out")
    (tmp_path / "data/c.nii.gz").symlink_to(tmp_path / "out/b.nii.gz")
    assert [row.image for row in find_layout(tmp_path / "data")] == ["a.nii.gz"]


def test_labels_complete_the_scans_of_a_named_layout(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz", "p2/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,label\np1/a.nii.gz,lesion\n")
    rows = find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")
    assert [(row.patient, row.label) for row in rows] == [("p1", "lesion"), ("p2", "")]
    assert len(find_layout(tmp_path, labels=tmp_path / "labels.csv")) == 1


def test_labels_for_an_unknown_scan_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,label\np9/a.nii.gz,lesion\n")
    with pytest.raises(ManifestError, match="not_found"):
        find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")


@pytest.mark.parametrize("layout", ["dicom", ""])
def test_an_unknown_layout_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UsageError, match="layout must be one of"):
        find_layout(tmp_path, layout=layout)


def test_an_empty_folder_has_no_rows(tmp_path: Path) -> None:
    assert find_layout(tmp_path) == []


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared beside the checkout")
@pytest.mark.parametrize(
    ("name", "scans", "lesions"), [("lgg", 81, 81), ("busi", 520, 431), ("brats2015", 8, 8), ("open_ms", 2, 2), ("dicom", 4, 0)]
)
def test_public_data_are_found(name: str, scans: int, lesions: int) -> None:
    rows = find_layout(SHARED / "data" / name)
    assert (len(rows), sum(bool(row.lesion) for row in rows)) == (scans, lesions)


def test_a_case_without_a_channel_that_others_have_keeps_the_place_empty(tmp_path: Path) -> None:
    make(tmp_path, "imagesTr/c1_0000.nii.gz", "imagesTr/c1_0001.nii.gz", "imagesTr/c2_0001.nii.gz", "imagesTs/c3_0000.nii.gz")
    assert [row.image for row in find_layout(tmp_path)] == [
        ";imagesTr/c2_0001.nii.gz",
        "imagesTr/c1_0000.nii.gz;imagesTr/c1_0001.nii.gz",
        "imagesTs/c3_0000.nii.gz;",
    ]


def test_a_table_of_labels_brings_reports_to_the_scans_of_a_layout(tmp_path: Path) -> None:
    make(tmp_path, "imagesTr/c1_0000.nii.gz")
    (tmp_path / "labels.csv").write_text("image,report\nimagesTr/c1_0000.nii.gz,No lesion.\n")
    assert find_layout(tmp_path, layout="nnunet", labels=tmp_path / "labels.csv")[0].report == "No lesion."
