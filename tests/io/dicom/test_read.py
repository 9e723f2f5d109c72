from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from medssl.io.discover import check_folder, read_folder, read_volume

SHARED = Path(__file__).resolve().parents[4] / "shared"
AFFINE = np.array([[0.7, 0, 0, -10.0], [0, 0.9, 0, 20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1]])


def only_record(folder: Path):
    (reading,) = read_folder(folder)
    return reading.record


def test_a_series_is_sorted_by_position_and_placed_in_ras(write_series, voxels):
    volume = read_volume(write_series())
    assert np.array_equal(volume.array[0], voxels)
    assert np.allclose(volume.affine, AFFINE, atol=1e-3)
    assert (volume.modality, volume.nominal) == ("CT", False)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_plain_syntaxes_give_the_same_voxels(write_series, voxels, syntax):
    def change(ds: Dataset, _k: int) -> None:
        ds.file_meta.TransferSyntaxUID = syntax

    assert np.array_equal(read_volume(write_series(change)).array[0], voxels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_syntaxes_give_the_same_voxels(write_series, voxels, syntax):
    pytest.importorskip("jpeg_ls")
    pytest.importorskip("openjpeg")
    folder = write_series(lambda ds, _k: ds.compress(syntax, generate_instance_uid=False))
    assert np.array_equal(read_volume(folder).array[0], voxels)


def test_bits_above_bits_stored_are_masked(write_series, voxels):
    def change(ds: Dataset, _k: int) -> None:
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0xA000).tobytes()

    assert np.array_equal(read_volume(write_series(change)).array[0], voxels)


def test_a_fractional_slope_gives_float32(write_series, voxels):
    def change(ds: Dataset, _k: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = 0.5, 0

    volume = read_volume(write_series(change))
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array[0], (voxels + 1024) / 2)


def shift_in_plane(ds: Dataset, k: int) -> None:
    if k == 2:
        ds.ImagePositionPatient[0] += 3


def set_tag(name: str, value: object, only: int | None = None):
    def change(ds: Dataset, k: int) -> None:
        if only is None or k == only:
            setattr(ds, name, value)

    return change


def remove_tag(name: str):
    return lambda ds, _k: delattr(ds, name)


def cut_short(ds: Dataset, k: int) -> None:
    if k == 1:
        ds.PixelData = ds.PixelData[:-10]


def set_modality_table(ds: Dataset, _k: int) -> None:
    del ds.RescaleSlope, ds.RescaleIntercept
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [3, 0, 16], "HU", np.array([0, 1000, 2000], "<u2").tobytes()
    ds.ModalityLUTSequence = [table]


REFUSED = {
    "missing_slice": lambda _ds, k: k != 1 or False,
    "patient_mismatch": set_tag("PatientID", "OTHER", only=1),
    "frame_of_reference_varies": set_tag("FrameOfReferenceUID", "1.9", only=2),
    "orientation_varies": set_tag("ImageOrientationPatient", [1, 0, 0, 0, 0.9848, 0.1736], only=3),
    "spacing_varies": set_tag("PixelSpacing", [0.5, 0.5], only=3),
    "units_vary": set_tag("RescaleType", "US", only=0),
    "no_geometry": remove_tag("ImagePositionPatient"),
    "missing_tag": remove_tag("Rows"),
    "bad_rescale": set_tag("RescaleSlope", 0),
    "bad_orientation": set_tag("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
    "bad_pixelspacing": set_tag("PixelSpacing", [0, 0]),
    "unsupported_bits": set_tag("HighBit", 7),
    "misaligned_slice": shift_in_plane,
    "conflicting_slices": set_tag("ImagePositionPatient", [0, 0, 100], only=1),
    "pixeldata_length": cut_short,
    "declared_size": set_tag("NumberOfFrames", 2000000),
    "modality_lut": set_modality_table,
    "mosaic": set_tag("ImageType", ["ORIGINAL", "PRIMARY", "MOSAIC"]),
}


@pytest.mark.parametrize("code", [code for code in REFUSED if code != "conflicting_slices"])
def test_a_faulty_series_is_refused_by_name(write_series, code):
    record = only_record(write_series(REFUSED[code]))
    assert record.status == "rejected"
    assert code in record.reasons


def test_a_radiograph_with_a_modality_table_is_read_as_stored(write_series):
    def change(ds: Dataset, k: int) -> bool:
        set_modality_table(ds, k)
        del ds.ImagePositionPatient
        ds.Modality = "CR"
        return k == 0

    assert only_record(write_series(change)).status == "accepted"


def test_two_images_at_one_position_are_refused(write_series):
    def change(ds: Dataset, k: int) -> None:
        if k == 1:
            ds.ImagePositionPatient = [ds.ImagePositionPatient[0], ds.ImagePositionPatient[1], 100]

    assert only_record(write_series(change)).reasons == ("conflicting_slices",)


def test_a_tilted_series_keeps_its_sheared_affine_with_a_warning(write_series):
    def change(ds: Dataset, k: int) -> None:
        ds.ImagePositionPatient[1] += 0.8 * k

    record = only_record(write_series(change))
    assert record.reasons == ("gantry_tilt",)
    assert record.affine_ras is not None
    assert record.affine_ras[1][2] == pytest.approx(-0.8)


def test_identical_copies_of_slices_are_dropped_with_a_warning(write_series, voxels):
    folder = write_series()
    (folder / "copy.dcm").write_bytes((folder / "0.dcm").read_bytes())
    assert only_record(folder).reasons == ("duplicate_dropped",)
    assert np.array_equal(read_volume(folder).array[0], voxels)


def test_an_empty_file_in_a_series_refuses_it(write_series):
    folder = write_series()
    (folder / "1.dcm").write_bytes(b"")
    assert only_record(folder).reasons == ("unreadable_slice", "empty_file")


def test_no_value_of_a_patient_tag_is_in_the_report(write_series):
    assert "secret" not in str(check_folder(write_series())).lower()


def test_the_patient_digest_ignores_case_and_blanks(write_series):
    first = only_record(write_series(folder="a"))
    second = only_record(write_series(set_tag("PatientID", "secret1"), folder="b"))
    assert first.patient == second.patient
    assert first.patient.startswith("p")


@pytest.mark.real_data
def test_a_real_series_equals_simpleitk():
    folder = SHARED / "data" / "dicom" / "mprage_siemens"
    if not folder.is_dir():
        pytest.skip("the shared data are absent")
    import SimpleITK

    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))), "RAS")
    volume = read_volume(folder)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), volume.array[0])
    assert np.allclose(np.array(image.GetOrigin()) * [-1, -1, 1], volume.affine[:3, 3], atol=1e-3)


@pytest.mark.real_data
def test_a_real_tilted_series_with_unequal_gaps_is_refused_by_both_names():
    folder = SHARED / "data" / "dicom" / "head_ct_ge_tilted"
    if not folder.is_dir():
        pytest.skip("the shared data are absent")
    assert only_record(folder).reasons == ("nonuniform_spacing", "gantry_tilt")
