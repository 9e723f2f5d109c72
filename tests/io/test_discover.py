import os

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.tag import Tag

from medssl.errors import ScanError, UsageError
from medssl.io.discover import check_folder, find_sources, read_folder, read_volume

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(path)


def test_a_missing_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="not_found"):
        find_sources(tmp_path / "gone")


@pytest.mark.parametrize("place", ["x" * 256, "x" * 256 + "/scan.nii"])
def test_a_name_that_is_too_long_for_a_disk_is_not_found(tmp_path, place):
    with pytest.raises(UsageError, match="not_found"):
        find_sources(tmp_path / place)


def test_an_empty_folder_gives_one_refusal(tmp_path):
    (reading,) = read_folder(tmp_path)
    assert (reading.record.reasons, reading.volume) == (("no_files",), None)


def test_sources_never_share_an_id(tmp_path):
    for name in ("a/b.png", "a-b.png", "a b.png", "a/b.jpg", "A-B.png"):
        picture(tmp_path / name)
    ids = [source.scan_id.lower() for source in find_sources(tmp_path)]
    assert len(set(ids)) == 5


def test_a_dicomdir_that_names_an_impossible_file_is_ignored(write_series):
    folder = write_series()
    (path, *_) = folder.iterdir()
    index, item = dcmread(path), Dataset()
    item.add_new(Tag("ReferencedFileID"), "UT", "x" * 256)
    index.DirectoryRecordSequence = [item]
    index.save_as(folder / "DICOMDIR")
    (reading,) = read_folder(folder)
    assert reading.record.reasons == ("dicomdir_ignored",)


def test_what_git_keeps_of_old_versions_is_no_scan(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".git" / "annex" / "b.png")
    assert [source.source for source in find_sources(tmp_path)] == ["a.png"]


def test_links_are_not_followed(tmp_path, write_series):
    folder = write_series()
    (folder / "9.dcm").symlink_to("/etc/passwd")
    (folder / "8.dcm").symlink_to(tmp_path / "gone")
    (reading,) = read_folder(folder)
    assert reading.record.reasons == ("symlink_skipped",)


def test_a_pipe_is_left_unopened(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.dcm")
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == ("special_file_skipped",)


def test_a_folder_of_links_beside_scans_has_a_record(tmp_path):
    picture(tmp_path / "a" / "a.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.png").symlink_to(tmp_path / "a" / "a.png")
    told = {reading.record.source: (reading.record.status, reading.record.reasons) for reading in read_folder(tmp_path)}
    assert told == {"a/a.png": ("accepted", ()), "b": ("rejected", ("symlink_skipped",))}


def test_a_folder_of_pipes_beside_scans_has_a_record(tmp_path):
    picture(tmp_path / "a" / "a.png")
    (tmp_path / "b.nii").mkdir()
    os.mkfifo(tmp_path / "b.nii" / "pipe")
    assert [source.problems for source in find_sources(tmp_path)] == [(), ("special_file_skipped",)]


def test_a_data_set_of_links_alone_has_a_record_for_each_folder(tmp_path):
    for name in ("sub-1", "sub-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii").symlink_to("gone")
    assert [(source.source, source.problems) for source in find_sources(tmp_path)] == [
        ("sub-1", ("symlink_skipped",)),
        ("sub-2", ("symlink_skipped",)),
    ]


def test_a_refused_scan_tells_of_the_links_beside_it(tmp_path):
    (tmp_path / "a.nii").write_text("text")
    (tmp_path / "b.nii").symlink_to("gone")
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == ("not_nifti", "symlink_skipped")


def test_links_below_a_series_do_not_keep_it_from_being_read(write_series, voxels):
    folder = write_series()
    (folder / "links").mkdir()
    (folder / "links" / "0.dcm").symlink_to(folder / "0.dcm")
    assert np.array_equal(read_volume(folder).array[0], voxels)


def test_tables_and_texts_beside_scans_have_no_record(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("images.csv", "README.md", "notes.txt", "facts.json"):
        (tmp_path / name).write_text("x")
    assert len(find_sources(tmp_path)) == 1


def test_junk_beside_a_series_is_a_warning(write_series):
    folder = write_series()
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf" * 100)
    (reading,) = read_folder(folder)
    assert reading.record.reasons == ("skipped_non_dicom",)


def test_attributes_of_macos_are_no_slices(write_series, voxels):
    folder = write_series()
    for path in list(folder.iterdir()):
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    (reading,) = read_folder(folder)
    assert reading.record.reasons == ("skipped_non_dicom",)
    assert np.array_equal(reading.volume.array[0], voxels)


def test_attributes_of_macos_beside_a_file_have_no_record(write_nifti):
    path = write_nifti(name="scan.nii.gz")
    path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    (reading,) = read_folder(path.parent)
    assert (reading.record.source, reading.record.status) == ("scan.nii.gz", "accepted")


def test_a_series_over_several_folders_is_one_scan(write_series, voxels):
    folder = write_series()
    for name in ("0.dcm", "1.dcm"):
        (folder / "sub").mkdir(exist_ok=True)
        (folder / name).rename(folder / "sub" / name)
    assert np.array_equal(read_volume(folder).array[0], voxels)


def test_two_patients_in_one_folder_are_kept_apart(write_series):
    write_series()

    def other(ds, k):
        ds.PatientID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "P2", "1.9.9", f"1.9.9.{k}"

    second = write_series(other, folder="other")
    for path in second.iterdir():
        path.rename(second.parent / "series" / f"b{path.name}")
    readings = list(read_folder(second.parent / "series"))
    assert [reading.record.reasons for reading in readings] == [("several_patients",)] * 2
    assert len({reading.record.patient for reading in readings}) == 2


def test_the_report_counts_each_status(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.nii").write_text("text")
    report = check_folder(tmp_path)
    assert report["counts"] == {"accepted": 1, "rejected": 1}
    assert [scan["reasons"] for scan in report["scans"]] == [[], ["not_nifti"]]


def test_the_image_of_a_pair_leads_to_its_header(write_nifti, voxels):
    path = write_nifti(name="scan.img")
    (source,) = find_sources(path)
    assert (source.source, source.path.name) == ("scan.img", "scan.hdr")
    assert np.array_equal(read_volume(path).array[0], voxels)


def test_a_pair_without_its_image_is_named(write_nifti):
    path = write_nifti(name="scan.img")
    path.unlink()
    (reading,) = read_folder(path.with_suffix(".hdr"))
    assert (reading.record.source, reading.record.reasons) == ("scan.hdr", ("not_found",))


@pytest.mark.parametrize("inside", [False, True])
def test_an_empty_folder_called_like_a_scan_is_no_file(tmp_path, inside):
    (tmp_path / "scan.nii.gz").mkdir()
    (reading,) = read_folder(tmp_path if inside else tmp_path / "scan.nii.gz")
    assert reading.record.reasons == ("not_a_file",)


def test_an_empty_mask_is_read_where_it_is_allowed(tmp_path):
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(tmp_path / "mask.png")
    assert read_volume(tmp_path / "mask.png", constant_allowed=True).array.max() == 0
    with pytest.raises(ScanError, match="constant_image"):
        read_volume(tmp_path / "mask.png")
