"""De-identification: what is done to each kind of tag, what is refused, and that nothing of the patient is left anywhere."""

import csv
import datetime
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)

from medssl import files
from medssl.cli import main
from medssl.errors import ConflictError, NoSpaceError, UsageError
from medssl.io.deidentify.folder import deidentify_folder
from medssl.io.deidentify.table import listed_actions
from medssl.io.deidentify.values import moved
from medssl.io.discover import read_folder

SHARED = Path(__file__).resolve().parents[4] / "shared"
SERIES = sorted(path for path in (SHARED / "data" / "dicom").glob("*") if path.is_dir())
Writer = Callable[..., Path]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "my.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


@pytest.fixture
def clean(write_series: Writer, key: Path, tmp_path: Path) -> Callable[..., Dataset]:
    """Writes a series changed by a function, de-identifies it, and gives the first copy back."""

    def run(change: Callable[[Dataset], object], **options: bool) -> Dataset:
        folder = write_series(lambda ds, _: change(ds))
        deidentify_folder(folder, tmp_path / "out", key, **options)
        return dcmread(copies(tmp_path / "out")[0])

    return run


def copies(out: Path) -> list[Path]:
    return sorted(out.rglob("*.dcm"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "deidentified.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def nested(dataset: Dataset, depth: int = 3) -> Dataset:
    """The innermost item of sequences that nothing in the table removes."""
    for _ in range(depth):
        inner = Dataset()
        dataset.AnatomicRegionSequence = [inner]
        dataset = inner
    return dataset


def innermost(dataset: Dataset, depth: int = 3) -> Dataset:
    for _ in range(depth):
        dataset = dataset.AnatomicRegionSequence[0]
    return dataset


def test_the_patient_becomes_a_pseudonym(clean):
    copy = clean(lambda _: None)
    assert str(copy.PatientName) == copy.PatientID
    assert copy.PatientID.startswith("P")
    assert len(copy.PatientID) == 13


def test_removed_tags_are_gone_and_emptied_ones_are_empty(clean):
    def change(ds):
        ds.PatientAge, ds.PatientComments, ds.SeriesDescription = "093Y", "text", "text"
        ds.AccessionNumber, ds.PatientBirthDate, ds.PatientSex, ds.InstitutionName = "1", "19600101", "F", "text"

    copy = clean(change)
    assert not {"PatientAge", "PatientComments", "SeriesDescription"} & set(copy.dir())
    assert [copy.AccessionNumber, copy.PatientBirthDate, copy.PatientSex, copy.InstitutionName] == ["", "", "", ""]


def test_a_dummy_takes_the_place_of_what_must_not_be_empty(clean):
    def change(ds):
        ds.DeviceSerialNumber, ds.ContrastBolusAgent = "123", ""

    copy = clean(change)
    assert (copy.DeviceSerialNumber, copy.ContrastBolusAgent) == ("REMOVED", "")


def test_technical_tags_are_kept_as_they_are(clean):
    def change(ds):
        ds.Manufacturer, ds.ConvolutionKernel, ds.KVP, ds.ImageType = "ACME", "B30f", "120.0", ["ORIGINAL", "PRIMARY"]

    copy = clean(change)
    assert (copy.Manufacturer, copy.ConvolutionKernel, copy.KVP.original_string) == ("ACME", "B30f", "120.0")
    assert list(copy.ImageType) == ["ORIGINAL", "PRIMARY"]


def test_private_tags_are_removed_at_any_depth(clean):
    def change(ds):
        for place in (ds, nested(ds)):
            place.private_block(0x0029, "SECRET INC", create=True).add_new(0x10, "LO", "private text")

    copy = clean(change)
    assert not [element for element in copy.iterall() if element.tag.is_private]


def test_nested_items_get_what_the_top_level_gets(clean):
    def change(ds):
        inner = nested(ds)
        inner.PatientID, inner.PatientBirthDate, inner.InstitutionAddress = "SECRET 1", "19600101", "text"

    copy = clean(change)
    inner = innermost(copy)
    assert (inner.PatientID, inner.PatientBirthDate, "InstitutionAddress" in inner) == (copy.PatientID, "", False)


def test_texts_that_nobody_vouched_for_are_removed(clean):
    def change(ds):
        ds.FrameLabel, ds.DetectorDescription, ds.DocumentTitle = "text", "text", "text"
        ds.add_new(0x00100218, "UT", "unlisted in a personal group")
        ds.add_new(0x0008FFF0, "LO", "unknown")
        ds.add_new(0x60000022, "LO", "overlay")
        ds.add_new(0x60003000, "OW", b"\0\0")
        ds.add_new(0x50003000, "OW", b"\0\0")

    copy = clean(change)
    assert not {0x00209453, 0x00187006, 0x00420010, 0x00100218, 0x0008FFF0, 0x60000022, 0x60003000, 0x50003000} & set(copy.keys())


def test_a_kept_text_that_names_the_patient_becomes_a_dummy(clean):
    def change(ds):
        ds.Manufacturer, ds.SequenceName, ds.BodyPartExamined = "for Mr SECRET", "fl3d", "CHEST"

    copy = clean(change)
    assert (copy.Manufacturer, copy.SequenceName, copy.BodyPartExamined) == ("REMOVED", "fl3d", "CHEST")


def test_a_value_that_is_no_number_or_code_is_removed(clean):
    def change(ds):
        ds.add_new("InstanceNumber", "LO", "text")
        ds["BodyPartExamined"] = Dataset.from_json('{"00180015": {"vr": "CS", "Value": ["CHEST"]}}')["BodyPartExamined"]
        ds["BodyPartExamined"].value = "chest, of somebody known to us"

    with pytest.warns(UserWarning):
        copy = clean(change)
    assert not {"InstanceNumber", "BodyPartExamined"} & set(copy.dir())


@pytest.mark.parametrize(
    ("text", "vr", "result"),
    [
        ("20240301", "DA", "20240229"),
        ("2024.03.01", "DA", "20240229"),
        ("20240301\\20240302", "DA", "20240229\\20240301"),
        ("20240301120000.5+0200", "DT", "20240229120000.5"),
        ("202403", "DT", "202402"),
        ("2024", "DT", "2023"),
        ("Secret", "DA", ""),
        ("20241301", "DA", ""),
        ("00010101", "DA", ""),
        ("20240301 Secret", "DT", ""),
        ("120000.123", "TM", "120000.123"),
        ("Secret", "TM", ""),
    ],
)
def test_dates_move_and_times_of_day_stay(text, vr, result):
    days = 1 if text != "2024" else 60
    assert moved(text, vr, days) == result


def test_intervals_between_dates_are_kept_at_any_depth(clean):
    def change(ds):
        ds.StudyDate, ds.AcquisitionDateTime = "20240301", "20240305101112"
        nested(ds).ContentDate = "20240411"

    copy = clean(change)
    study, acquired, content = (
        datetime.date.fromisoformat(text[:8]) for text in (copy.StudyDate, copy.AcquisitionDateTime, innermost(copy).ContentDate)
    )
    assert ((acquired - study).days, (content - study).days) == (4, 41)
    assert 1 <= (datetime.date(2024, 3, 1) - study).days <= 3650
    assert copy.AcquisitionDateTime[8:] == "101112"


def test_another_patient_has_another_name_and_another_shift(write_series, key, tmp_path):
    def other(ds, k):
        ds.PatientID, ds.StudyInstanceUID, ds.StudyDate = f"other {k}", f"9.9.{k}", "20240301"

    deidentify_folder(write_series(other), tmp_path / "out", key)
    found = [dcmread(path) for path in copies(tmp_path / "out")]
    assert len({ds.PatientID for ds in found}) == len({ds.StudyDate for ds in found}) == 4


def test_a_patient_is_the_same_however_the_id_is_written_and_in_every_run(write_series, key, tmp_path):
    def written(ds, _):
        ds.PatientID, ds.PatientName, ds.StudyDate = " secret1 ", "Other^Spelling", "20240301"

    deidentify_folder(write_series(folder="a"), tmp_path / "out a", key)
    deidentify_folder(write_series(written, folder="b"), tmp_path / "out b", key)
    first, second = (dcmread(copies(tmp_path / name)[0]) for name in ("out a", "out b"))
    assert first.PatientID == second.PatientID


def test_an_issuer_tells_two_patients_of_one_id_apart(write_series, key, tmp_path):
    def change(ds, k):
        ds.IssuerOfPatientID = "A" if k else "B"

    deidentify_folder(write_series(change), tmp_path / "out", key)
    assert len({path.relative_to(tmp_path / "out").parts[0] for path in copies(tmp_path / "out")}) == 2


def test_a_segmentation_still_points_to_its_images(write_series, key, tmp_path):
    folder = write_series()
    seg = dcmread(folder / "0.dcm")
    seg.SOPClassUID, seg.SOPInstanceUID, seg.SeriesInstanceUID, seg.Modality = SegmentationStorage, "1.2.3.9", "1.2.3.9.9", "SEG"
    reference, series = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.2"
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = "1.2.3.4", [reference]
    seg.ReferencedSeriesSequence = [series]
    seg.file_meta.MediaStorageSOPClassUID, seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPClassUID, seg.SOPInstanceUID
    seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    deidentify_folder(folder, tmp_path / "out", key)
    found = {ds.SOPInstanceUID: ds for ds in map(dcmread, copies(tmp_path / "out"))}
    copy = next(ds for ds in found.values() if ds.Modality == "SEG")
    pointed = copy.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    image = found[pointed.ReferencedSOPInstanceUID]
    assert image.SeriesInstanceUID == copy.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert image.FrameOfReferenceUID == copy.FrameOfReferenceUID
    assert pointed.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"


def test_uids_of_the_standard_stay(clean):
    def change(ds):
        ds.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"

    copy = clean(change)
    assert copy.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"
    assert copy.SOPInstanceUID.startswith("2.25.")


def test_the_copy_says_what_was_done(clean):
    copy = clean(lambda _: None)
    codes = [item.CodeValue for item in copy.DeidentificationMethodCodeSequence]
    assert (copy.PatientIdentityRemoved, copy.LongitudinalTemporalInformationModified, codes) == ("YES", "MODIFIED", ["113100", "113107"])


def test_the_file_meta_is_written_anew(write_series, key, tmp_path):
    folder = write_series()
    for path in folder.iterdir():
        ds = dcmread(path)
        ds.preamble = b"Secret".ljust(128, b"\0")
        ds.file_meta.SourceApplicationEntityTitle, ds.file_meta.ImplementationVersionName = "SECRET_AE", "SECRET_1"
        ds.save_as(path, enforce_file_format=True)
    deidentify_folder(folder, tmp_path / "out", key)
    copy = dcmread(copies(tmp_path / "out")[0])
    assert copy.preamble == bytes(128)
    assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in copy.file_meta
    assert copy.file_meta.ImplementationVersionName == "MEDSSL"


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_pixel_bytes_are_the_same_in_every_transfer_syntax(syntax, write_series, key, tmp_path):
    def change(ds, _):
        if syntax == RLELossless:
            ds.compress(RLELossless, generate_instance_uid=False)
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax

    folder = write_series(change)
    deidentify_folder(folder, tmp_path / "out", key)
    before = {dcmread(path).PixelData for path in folder.iterdir()}
    found = [dcmread(path) for path in copies(tmp_path / "out")]
    assert {ds.PixelData for ds in found} == before
    assert {ds.file_meta.TransferSyntaxUID for ds in found} == {syntax}


def test_the_intake_reads_the_same_voxels_from_the_copies(write_series, key, tmp_path):
    folder = write_series()
    deidentify_folder(folder, tmp_path / "out", key)
    before, after = ([each.record for each in read_folder(place) if each.volume] for place in (folder, tmp_path / "out"))
    assert [record.voxels_sha256 for record in before] == [record.voxels_sha256 for record in after]
    assert before[0].affine_ras == after[0].affine_ras


def burned_in(ds):
    ds.BurnedInAnnotation = "YES"


def capture(ds):
    ds.SOPClassUID = SecondaryCaptureImageStorage


def colour_capture(ds):
    ds.SOPClassUID, ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = SecondaryCaptureImageStorage, 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, ds.PixelData + ds.PixelData[: len(ds.PixelData) // 2]


def ultrasound(ds):
    ds.SOPClassUID, ds.Modality, ds.BurnedInAnnotation = UltrasoundImageStorage, "US", "NO"


def screen_save(ds):
    ds.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]


def dose_page(ds):
    ds.SeriesDescription = "Dose Report"


def overlay_in_pixels(ds):
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 12)


@pytest.mark.parametrize("change", [burned_in, capture, colour_capture, ultrasound, screen_save, dose_page, overlay_in_pixels])
def test_pixels_with_text_are_refused_unless_forced(change, write_series, key, tmp_path):
    folder = write_series(lambda ds, _: change(ds))
    refused = deidentify_folder(folder, tmp_path / "refused", key)
    forced = deidentify_folder(folder, tmp_path / "forced", key, force_burned_in=True)
    assert {row.reason for row in refused} == {"burned_in_annotation"}
    assert {(row.status, "burned_in_annotation" in row.notes) for row in forced} == {("copied", True)}
    assert (copies(tmp_path / "refused"), len(copies(tmp_path / "forced"))) == ([], 4)


@pytest.mark.parametrize("sop_class", [EncapsulatedPDFStorage, "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.11.1", "1.2.3.4"])
def test_objects_that_are_no_images_are_refused_even_when_forced(sop_class, write_series, key, tmp_path):
    def change(ds, _):
        ds.SOPClassUID = sop_class

    found = deidentify_folder(write_series(change), tmp_path / "out", key, force_burned_in=True)
    assert {(row.status, row.reason) for row in found} == {("refused", "not_a_scan")}


@pytest.mark.parametrize(("part", "notes"), [("HEAD", ("face",)), ("", ("face",)), ("CHEST", ())])
def test_a_head_is_noted(part, notes, write_series, key, tmp_path):
    def change(ds, _):
        ds.BodyPartExamined = part

    assert {row.notes for row in deidentify_folder(write_series(change), tmp_path / "out", key)} == {notes}


def test_a_small_picture_inside_a_sequence_is_removed(clean):
    copy = clean(lambda ds: nested(ds).add_new("PixelData", "OW", b"\0\0"))
    assert "PixelData" not in innermost(copy)
    assert "PixelData" in copy


def plant(ds: Dataset, k: int) -> None:
    """Values of a patient in every kind of place that DICOM has for them."""
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.OtherPatientIDs = "SSN 123-45-6789", "Secret^Name", "19600101", "SSN 123-45-6789"
    ds.AccessionNumber, ds.StudyID, ds.InstitutionName, ds.StationName = "ACCSECRET", "SECRET", "SYNTH HOSPITAL", "SECRET"
    ds.ReferringPhysicianName, ds.OperatorsName = "Secret^Doctor", "Secret^Operator"
    ds.PatientComments, ds.ImageComments, ds.StudyDescription = "Secret", "seen at SYNTH HOSPITAL", "CT of Secret Name"
    ds.Manufacturer, ds.SoftwareVersions, ds.ProtocolName = "Secret", "Secret 1", "Secret"
    ds.StudyDate = ds.ContentDate = ds.LastMenstrualDate = "19600101"
    ds.AcquisitionDateTime, ds.BodyPartExamined, ds.InstanceNumber = "19600101101010", "CHEST", str(k + 1)
    ds.ContentCreatorName, ds.FrameLabel, ds.DerivationDescription = "Secret^Reader", "SYNTH HOSPITAL", "Secret"
    for place in (ds, nested(ds)):
        block = place.private_block(0x0029, "SYNTH HOSPITAL", create=True)
        block.add_new(0x10, "LO", "Secret")
        block.add_new(0x11, "SQ", Sequence([Dataset()]))
        place.CodeMeaning, place.PersonName, place.TextValue, place.RetrieveURL = "Secret", "Secret^Name", "Secret", "http://synth/Secret"
    item = Dataset()
    item.PatientName, item.PatientID = "Secret^Name", "SSN 123-45-6789"
    ds.OtherPatientIDsSequence = ds.RequestAttributesSequence = ds.OriginalAttributesSequence = [item]
    ds.StudyInstanceUID, ds.file_meta.SourceApplicationEntityTitle = "1.2.19600101.3", "SECRET"


SECRETS = (b"secret", b"ssn", b"123-45-6789", b"19600101", b"synth", b"accsecret")


def leaks(out: Path) -> list[str]:
    found = [str(path) for path in out.rglob("*") for word in SECRETS if word in str(path.relative_to(out)).lower().encode()]
    return found + [str(path) for path in out.rglob("*") if path.is_file() for word in SECRETS if word in path.read_bytes().lower()]


def test_no_value_of_the_patient_is_found_anywhere(write_series, key, tmp_path, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    folder = write_series(plant, folder="Secret_Name/SSN 123-45-6789")
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"Secret_19600101_{number}.dcm")
    (folder / "Secret.txt").write_text("Secret")
    (folder / "Secret.dcm").write_text("Secret")
    (folder / "Secret_cut.dcm").write_bytes((folder / "Secret_19600101_0.dcm").read_bytes()[:900])
    broken = dcmread(folder / "Secret_19600101_1.dcm")
    broken.add_new("SpecificCharacterSet", "CS", "SECRET_CHARSET")
    broken.SOPInstanceUID = broken.file_meta.MediaStorageSOPInstanceUID = "1.2.3.77"
    with pytest.warns(UserWarning):
        broken.save_as(folder / "Secret_charset.dcm")
    (folder / "link.dcm").symlink_to(folder / "Secret.txt")
    caplog.clear()
    assert main(["deidentify", str(tmp_path / "Secret_Name"), "--out", str(tmp_path / "out"), "--key", str(key)]) == 1
    captured = capsys.readouterr()
    assert len(copies(tmp_path / "out")) >= 4
    assert leaks(tmp_path / "out") == []
    said = (captured.out + captured.err + caplog.text).lower().encode()
    assert [word for word in SECRETS if word in said.replace(str(tmp_path).lower().encode(), b"")] == []


def test_every_file_has_its_row(write_series, key, tmp_path):
    folder = write_series()
    (folder / "notes.txt").write_text("x")
    (folder / "bad.dcm").write_bytes(b"x" * 500)
    (folder / "empty").touch()
    (folder / "copy.dcm").write_bytes((folder / "0.dcm").read_bytes())
    (folder / "other.dcm").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.dcm")
    deidentify_folder(folder, tmp_path / "out", key)
    found = sorted((row["status"], row["reason"]) for row in rows(tmp_path / "out"))
    assert found == sorted(
        [("copied", "")] * 4
        + [("refused", "not_dicom"), ("refused", "empty_file"), ("skipped", "not_dicom"), ("skipped", "duplicate_dropped")]
        + [("skipped", "symlink_skipped"), ("skipped", "special_file_skipped")]
    )
    assert len({row["source"] for row in rows(tmp_path / "out")}) >= 9


def test_the_tag_table_counts_files_and_tells_no_value(write_series, key, tmp_path):
    deidentify_folder(write_series(plant), tmp_path / "out", key)
    with (tmp_path / "out" / "deidentified_tags.csv").open(newline="") as file:
        found = {(row["tag"], row["keyword"], row["action"]): row["files"] for row in csv.DictReader(file)}
    assert found["(0010,0010)", "PatientName", "D"] == found["(0008,0080)", "InstitutionName", "Z"] == "4"
    assert found["(0029,1010)", "", "X"] == "4"


def test_no_cell_starts_a_formula(write_series, key, tmp_path):
    deidentify_folder(write_series(plant), tmp_path / "out", key)
    cells = [cell for path in (tmp_path / "out").glob("*.csv") for row in csv.reader(path.read_text().splitlines()) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_running_again_changes_nothing(write_series, key, tmp_path):
    folder = write_series(plant)
    first = deidentify_folder(folder, tmp_path / "out", key)
    before = {path: path.stat().st_mtime_ns for path in copies(tmp_path / "out")}
    tables = [(tmp_path / "out" / name).read_bytes() for name in ("deidentified.csv", "deidentified_tags.csv")]
    assert deidentify_folder(folder, tmp_path / "out", key) == first
    assert {path: path.stat().st_mtime_ns for path in copies(tmp_path / "out")} == before
    assert [(tmp_path / "out" / name).read_bytes() for name in ("deidentified.csv", "deidentified_tags.csv")] == tables


def test_a_second_folder_joins_the_first(write_series, key, tmp_path):
    def other(ds, k):
        ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.9", f"1.2.9.{k}"

    deidentify_folder(write_series(folder="a"), tmp_path / "out", key)
    deidentify_folder(write_series(other, folder="b"), tmp_path / "out", key)
    assert [row["status"] for row in rows(tmp_path / "out")] == ["copied"] * 8
    assert len({row["path"] for row in rows(tmp_path / "out")}) == len(copies(tmp_path / "out")) == 8


def test_another_image_under_the_same_uid_is_refused(write_series, key, tmp_path):
    def same(ds, _):
        ds.SOPInstanceUID = "1.2.3.4.1"

    found = deidentify_folder(write_series(same), tmp_path / "out", key)
    assert sorted(row.reason for row in found) == ["", "conflicting_slices", "conflicting_slices", "conflicting_slices"]


@pytest.mark.parametrize("name", ["notes.txt", "deidentified.json"])
def test_no_key_is_made_for_an_out_folder_that_is_refused(write_series, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(ConflictError):
        deidentify_folder(write_series(), tmp_path / "out")
    assert not (tmp_path / "out.key").exists()


def test_another_key_is_a_conflict(write_series, key, tmp_path, capsys):
    folder = write_series()
    deidentify_folder(folder, tmp_path / "out", key)
    key.write_bytes(b"x" * 32)
    assert main(["deidentify", str(folder), "--out", str(tmp_path / "out"), "--key", str(key)]) == 3
    assert "another key" in capsys.readouterr().err


def test_a_folder_with_other_things_is_left_alone(write_series, key, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(ConflictError, match="other files"):
        deidentify_folder(write_series(), tmp_path / "out", key)


@pytest.mark.parametrize("out", ["series/out", ".", "series"])
def test_folders_inside_each_other_are_refused(out, write_series, key, tmp_path):
    with pytest.raises(UsageError, match="inside the other"):
        deidentify_folder(write_series(), tmp_path / out, key)


def test_a_key_in_the_out_folder_is_refused(write_series, tmp_path):
    with pytest.raises(UsageError, match="key lies in"):
        deidentify_folder(write_series(), tmp_path / "out", tmp_path / "out" / "key", new_key=True)


def test_a_folder_whose_name_is_too_long_for_a_disk_is_not_found(key, tmp_path):
    with pytest.raises(UsageError, match="not_found"):
        deidentify_folder(tmp_path / ("x" * 256), tmp_path / "out", key)


def test_a_folder_without_dicom_is_refused(key, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").touch()
    with pytest.raises(UsageError, match="no_files"):
        deidentify_folder(tmp_path / "in", tmp_path / "out", key)
    assert not (tmp_path / "out").exists()


def test_without_a_key_one_is_made_beside_the_copies(write_series, tmp_path):
    folder = write_series()
    first = deidentify_folder(folder, tmp_path / "out")
    assert deidentify_folder(folder, tmp_path / "out") == first
    assert (tmp_path / "out.key").stat().st_mode & 0o777 == 0o600


def test_what_a_killed_run_left_is_removed_and_does_not_stop_the_next(write_series, key, tmp_path):
    folder, left = write_series(), f".a.{files._host()}-99999999-01234567.tmp"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / left).touch()
    deidentify_folder(folder, tmp_path / "out", key)
    (copies(tmp_path / "out")[0].parent / left).touch()
    deidentify_folder(folder, tmp_path / "out", key)
    assert not list((tmp_path / "out").rglob(left))


def test_a_full_disk_leaves_nothing_half_written(write_series, key, tmp_path, monkeypatch):
    folder, done = write_series(), 0
    sync = os.fsync

    def full(handle: int) -> None:
        nonlocal done
        done += 1
        if done > 5:
            raise OSError(errno.ENOSPC, "no space")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError):
        deidentify_folder(folder, tmp_path / "out", key)
    monkeypatch.undo()
    assert len(copies(tmp_path / "out")) < 4
    assert not list((tmp_path / "out").rglob(".*"))
    assert all(dcmread(path).PixelData for path in copies(tmp_path / "out"))
    deidentify_folder(folder, tmp_path / "out", key)
    assert len(copies(tmp_path / "out")) == 4


def test_a_file_with_something_wrong_inside_stops_nothing(write_series, key, tmp_path):
    folder = write_series()
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for element in dcmread(folder / "0.dcm"):
        ds.add(element)
    ds.SOPInstanceUID = "1.2.3.99"
    deep = ds
    for _ in range(200):
        deep.AnatomicRegionSequence = [Dataset()]
        deep = deep.AnatomicRegionSequence[0]
    ds.save_as(folder / "deep.dcm", enforce_file_format=True)
    found = deidentify_folder(folder, tmp_path / "out", key)
    assert sorted(row.reason for row in found) == ["", "", "", "", "nesting"]


def test_the_table_has_every_action_and_no_tag_twice():
    text = (Path(__file__).resolve().parents[3] / "medssl" / "io" / "deidentify" / "table.tsv").read_text().splitlines()[1:]
    assert len(listed_actions()) == len(text) > 650
    assert set(listed_actions().values()) == set("XZDKCU")


@pytest.mark.real_data
@pytest.mark.skipif(not SERIES, reason="no folder shared beside the checkout")
@pytest.mark.parametrize("folder", SERIES, ids=lambda path: path.name)
def test_real_series_keep_their_voxels(folder, key, tmp_path):
    deidentify_folder(folder, tmp_path / "out", key)
    before, after = (sorted(str(each.record.voxels_sha256) for each in read_folder(place)) for place in (folder, tmp_path / "out"))
    assert before == after
