"""Scans, masks and patients from the way a folder is laid out."""

import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medssl.data.layouts import detect, find_layout, split_volumes
from medssl.data.manifest import ManifestRow
from medssl.errors import ManifestError, UsageError
from medssl.io.discover import find_sources, read_volume
from medssl.io.options import ReadOptions
from medssl.io.voxels import exact_sha256
from medssl.phantom import make_cohort
from tests.data.conftest import picture

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


@pytest.mark.parametrize("name", ["defacemask", "face_mask", "pydeface_mask", "anon_mask"])
def test_a_mask_of_a_face_is_neither_lesion_nor_scan(tmp_path: Path, name: str) -> None:
    make(tmp_path / "plain", "p1/flair.nii.gz", f"p1/flair_{name}.nii.gz", "p2/flair.nii.gz", "p2/flair_surface_mask.nii.gz")
    make(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii.gz", f"sub-1/anat/sub-1_mod-T1w_{name}.nii.gz")
    assert [row.lesion for row in find_layout(tmp_path / "plain")] == ["", "p2/flair_surface_mask.nii.gz"]
    assert [row.lesion for row in find_layout(tmp_path / "bids")] == [""]


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


def second_series(series: Path, folder: Path, uid: str = "1.2.3") -> Path:
    """A copy of a series under another number, its files with other names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID, header.SOPInstanceUID = uid, f"{uid}.{header.InstanceNumber}"
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.PixelData = (255 - np.frombuffer(header.PixelData, np.uint8)).tobytes()
        header.save_as(folder / f"second_{path.name}")
    return folder


def test_every_series_of_a_folder_is_a_scan_that_can_be_read(tmp_path: Path) -> None:
    series = next(dicom_cohort(tmp_path / "made", 4).glob("*/flair"))
    second_series(series, shutil.copytree(series, tmp_path / "data/patient/export"))
    rows = find_layout(tmp_path / "data")
    volumes = [read_volume(tmp_path / "data" / row.image) for row in rows]
    assert [row.image.rpartition("/")[0] for row in rows] == ["patient/export"] * 2
    assert len({exact_sha256(volume) for volume in volumes}) == 2
    assert {volume.shape for volume in volumes} == {(16, 16, 6)}
    assert rows[0].patient == rows[1].patient


def test_a_series_can_be_read_beside_a_mask_in_its_folder_or_in_a_zip_archive(tmp_path: Path) -> None:
    series = next(dicom_cohort(tmp_path / "made", 4).glob("*/flair"))
    plain = shutil.copytree(series, tmp_path / "data/patient")
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 6), np.uint8), np.eye(4)), plain / "lesion.nii.gz")
    both = second_series(series, shutil.copytree(series, tmp_path / "both"))
    with zipfile.ZipFile(tmp_path / "data/flat.zip", "w") as archive:
        for path in both.iterdir():
            archive.write(path, path.name)
    rows = find_layout(tmp_path / "data")
    assert [bool(row.lesion) for row in rows if row.image.startswith("patient/series-")] == [True]
    assert sum(row.image.startswith("flat.zip/series-") for row in rows) == 2
    assert {read_volume(tmp_path / "data" / row.image).shape for row in rows} == {(16, 16, 6)}


def test_a_scan_is_known_by_its_content_where_its_name_says_nothing(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(picture(0), np.eye(4)), tmp_path / "scan.nii")
    (tmp_path / "p1").mkdir()
    (tmp_path / "scan.nii").rename(tmp_path / "p1/scan")
    (tmp_path / "p1/model.bin").write_bytes(b"no scan")
    assert [row.image for row in find_layout(tmp_path)] == ["p1/scan"]


def test_a_folder_of_all_images_is_no_patient(tmp_path: Path) -> None:
    make(tmp_path, *(f"images/case{number}.nii.gz" for number in range(3)), "labels/case1.nii.gz")
    assert [row.patient for row in find_layout(tmp_path)] == ["case0", "case1", "case2"]


def test_folders_of_patients_beside_one_of_masks_stay_patients(tmp_path: Path) -> None:
    make(tmp_path, "p1/p1_t1.nii.gz", "p1/p1_t2.nii.gz", "p2/p2_t1.nii.gz", "p2/p2_t2.nii.gz", "masks/p1_t1.nii.gz", "masks/p2_t1.nii.gz")
    assert [(row.patient, bool(row.lesion)) for row in find_layout(tmp_path)] == [("p1", True), ("p1", False), ("p2", True), ("p2", False)]


def test_a_series_whose_digest_has_digits_alone_can_be_read(tmp_path: Path) -> None:
    series = next(dicom_cohort(tmp_path / "made", 4).glob("*/flair"))
    both = second_series(series, shutil.copytree(series, tmp_path / "data/p1"), uid="1.2.826.0.1.31")
    assert "series-9514283098" in {each.scan_id for each in find_sources(both)}
    assert {read_volume(tmp_path / "data" / row.image).shape for row in find_layout(tmp_path / "data")} == {(16, 16, 6)}


def test_links_beside_a_series_leave_its_name(tmp_path: Path) -> None:
    series = next(dicom_cohort(tmp_path / "made", 4).glob("*/flair"))
    place = shutil.copytree(series, tmp_path / "data/p1")
    second_series(series, tmp_path / "data/p2")
    (place / "links").mkdir()
    (place / "links" / "a").symlink_to(series)
    assert [row.image for row in find_layout(tmp_path / "data")] == ["p1", "p2"]


def test_guessing_patients_from_files_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_layout(make(tmp_path, *(f"p{patient}/slice{number}.png" for patient in range(2) for number in range(9))))
    assert "18 scans count as patients of their own" in caplog.text


def test_a_skull_stripped_image_is_no_mask(tmp_path: Path) -> None:
    rows = find_layout(make(tmp_path, "p1/t1.nii.gz", "p1/t1_masked.nii.gz"))
    assert [row.lesion for row in rows] == ["", ""]


def test_tissue_of_an_anatomical_pipeline_is_no_lesion(tmp_path: Path) -> None:
    make(tmp_path, "sub-0/anat/sub-0_T1w.nii.gz", "derivatives/fmriprep/sub-0/anat/sub-0_dseg.nii.gz")
    make(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "derivatives/drawn/sub-1/anat/sub-1_dseg.nii.gz")
    assert [bool(row.lesion) for row in find_layout(tmp_path)] == [False, True]


def test_a_group_that_is_no_class_name_is_refused_with_its_table(tmp_path: Path) -> None:
    make(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-1\tParkinson's\n")
    assert [row.label for row in find_layout(tmp_path)] == ["Parkinson's"]
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-1\t<b>\n")
    with pytest.raises(ManifestError, match="bad_label: row 2 of participants.tsv"):
        find_layout(tmp_path)


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


def test_a_table_names_the_patients_of_a_layout_where_it_has_them(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz", "p2/a.nii.gz", "p3/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,patient,modality\np1/a.nii.gz,same,CT\np2/a.nii.gz,same,\np3/a.nii.gz,,\n")
    rows = find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")
    assert [(row.patient, row.modality) for row in rows] == [("same", "CT"), ("same", ""), ("p3", "")]


def test_what_a_table_says_is_a_mask_is_no_scan_of_the_layout(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz", "p1/drawn.nii.gz", "p2/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,lesion\np1/a.nii.gz,p1/drawn.nii.gz\n")
    rows = find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")
    assert [(row.image, row.lesion) for row in rows] == [("p1/a.nii.gz", "p1/drawn.nii.gz"), ("p2/a.nii.gz", "")]


def test_what_a_table_says_is_defaced_is_neither_scan_nor_lesion_of_the_layout(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz", "p1/mask.nii.gz", "p2/a.nii.gz", "p2/nose.nii.gz")
    (tmp_path / "labels.csv").write_text("path,defaced\np1/a.nii.gz,p1/mask.nii.gz\np2/a.nii.gz,p2/nose.nii.gz\n")
    rows = find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")
    assert [(row.image, row.lesion, row.defaced) for row in rows] == [
        ("p1/a.nii.gz", "", "p1/mask.nii.gz"),
        ("p2/a.nii.gz", "", "p2/nose.nii.gz"),
    ]


def test_a_patient_that_a_table_and_a_folder_spell_in_two_ways_has_the_first_spelling(tmp_path: Path) -> None:
    make(tmp_path, "P 1/a.nii.gz", "p2/a.nii.gz", "p3/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,patient\np2/a.nii.gz,p1\n")
    assert [row.patient for row in find_layout(tmp_path, layout="plain", labels=tmp_path / "labels.csv")] == ["P 1", "P 1", "p3"]


def test_files_that_a_table_does_not_name_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "p1/a.nii.gz", "p1/mask.nii.gz", "p2/a.nii.gz", "p3/1.dcm", "p4/a.nii.gz")
    (tmp_path / "labels.csv").write_text("path,lesion\np1/a.nii.gz,p1/mask.nii.gz\np3,\np4/a.nii.gz/t000,\ngone.nii,\n")
    assert len(find_layout(tmp_path, labels=tmp_path / "labels.csv")) == 4
    assert "1 image files are not in labels.csv and were left out" in caplog.text


def test_masks_that_a_table_names_are_not_counted_as_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a.nii.gz", "lesion.nii.gz", "face.nii.gz")
    (tmp_path / "images.csv").write_text("path,patient,lesion,defaced\na.nii.gz,P1,lesion.nii.gz,face.nii.gz\n")
    assert (len(find_layout(tmp_path)), "left out" in caplog.text) == (1, False)


def test_the_manifest_of_a_store_is_no_table_of_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.nii.gz", "p2/a.nii.gz", "store.json")
    (tmp_path / "manifest.csv").write_text("image\np1/a.nii.gz\n")
    assert detect(tmp_path) == "plain"


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


def pack(archive: Path, **members: np.ndarray) -> None:
    """A zip archive with a NIfTI for each member; `__` in its name stands for a folder."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, array in members.items():
            image = nib.Nifti1Image(array, np.eye(4))
            file.writestr(f"{name.replace('__', '/')}.nii", image.to_bytes())


def test_images_and_masks_in_archives_are_scans_as_if_they_lay_in_folders(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        pack(tmp_path / f"{patient}.zip", flair=picture(1), lesion=picture(2))
    rows = find_layout(tmp_path)
    assert [(row.patient, row.image, row.lesion) for row in rows] == [
        ("p1", "p1.zip/flair.nii", "p1.zip/lesion.nii"),
        ("p2", "p2.zip/flair.nii", "p2.zip/lesion.nii"),
    ]


def test_one_archive_of_all_patients_names_them_by_its_folders(tmp_path: Path) -> None:
    pack(tmp_path / "all.zip", p1__flair=picture(1), p2__flair=picture(2))
    assert [(row.patient, row.image) for row in find_layout(tmp_path)] == [("p1", "all.zip/p1/flair.nii"), ("p2", "all.zip/p2/flair.nii")]


def test_an_archive_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "p1/flair.nii.gz")
    (tmp_path / "p2.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    assert [row.image for row in find_layout(tmp_path)] == ["p1/flair.nii.gz", "p2.zip"]


def test_a_file_of_several_volumes_is_a_row_a_volume_of_one_patient(tmp_path: Path) -> None:
    rows = [
        ManifestRow("a", "P1", "a.nii", lesion="m.nii", label="x"),
        ManifestRow("b", "P2", "b.nii"),
        ManifestRow("c", "P3", "c.nii;b.nii"),
    ]
    for name, shape in (("a", (4, 4, 4, 2)), ("m", (4, 4, 4)), ("b", (4, 4, 4))):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / f"{name}.nii")
    assert split_volumes(tmp_path, rows, ReadOptions()) == rows
    assert split_volumes(tmp_path, rows, ReadOptions(four_d="split")) == [
        ManifestRow("a-t000", "P1", "a.nii/t000", lesion="m.nii", label="x"),
        ManifestRow("a-t001", "P1", "a.nii/t001", lesion="m.nii", label="x"),
        *rows[1:],
    ]


@pytest.mark.parametrize("image", ["gone.nii", "a.zip/gone.nii"])
def test_a_file_that_is_not_there_is_one_row_to_be_refused(tmp_path: Path, image: str) -> None:
    pack(tmp_path / "a.zip", flair=picture(1))
    row = ManifestRow("a", "P1", image)
    assert split_volumes(tmp_path, [row], ReadOptions(four_d="split")) == [row]


def test_a_mask_of_as_many_volumes_is_split_with_its_scan(tmp_path: Path) -> None:
    for name in ("a", "m"):
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), tmp_path / f"{name}.nii")
    rows = split_volumes(tmp_path, [ManifestRow("a", "P1", "a.nii", lesion="m.nii", defaced="m.nii")], ReadOptions(four_d="split"))
    assert [(row.image, row.lesion) for row in rows] == [("a.nii/t000", "m.nii/t000"), ("a.nii/t001", "m.nii/t001")]
    assert [row.defaced for row in rows] == ["m.nii/t000", "m.nii/t001"]


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
