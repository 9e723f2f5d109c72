import gzip

import nibabel as nib
import numpy as np
import pytest

from medssl.io.discover import read_folder, read_volume

AFFINE = np.array([[0.7, 0, 0, -10.0], [0, 0.9, 0, 20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1]])


def reasons(path):
    (reading,) = read_folder(path)
    return reading.record.reasons


def header(path, name: str, value: object):
    """Sets a field of the header in the file, as a damaged or odd writer would."""
    raw = bytearray(path.read_bytes())
    fields = np.frombuffer(raw[:348], nib.nifti1.header_dtype).copy()
    fields[name] = value
    path.write_bytes(fields.tobytes() + bytes(raw[348:]))
    return path


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.img"])
def test_each_container_gives_the_same_volume(write_nifti, voxels, name):
    path = write_nifti(name=name)
    volume = read_volume(path.with_suffix(".hdr") if name.endswith(".img") else path)
    assert np.array_equal(volume.array[0], voxels)
    assert np.allclose(volume.affine, AFFINE, atol=1e-3)


def test_any_stored_orientation_comes_out_in_ras(write_nifti, voxels):
    def turn(image):
        image.set_sform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
        image.set_qform(None, 0)

    assert np.array_equal(read_volume(write_nifti(turn)).array[0], voxels[::-1])


def test_unknown_units_are_nominal_and_accepted(write_nifti):
    path = write_nifti(lambda image: image.header.set_xyzt_units(0))
    assert read_volume(path).nominal
    assert reasons(path) == ()


def test_metres_are_converted_with_a_warning(write_nifti):
    path = write_nifti(lambda image: image.header.set_xyzt_units("meter"))
    header(path, "srow_x", [0.0007, 0, 0, 0])
    header(path, "srow_y", [0, 0.0009, 0, 0])
    header(path, "srow_z", [0, 0, 0.0025, 0])
    header(path, "qform_code", 0)
    assert reasons(path) == ("units_converted",)
    assert read_volume(path).spacing_mm == pytest.approx((0.7, 0.9, 2.5), abs=1e-4)


def test_a_flipped_byte_of_a_gzip_is_refused(write_nifti):
    path = write_nifti(name="scan.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    assert reasons(path) == ("corrupt_gzip",)


def test_a_cut_gzip_is_truncated(write_nifti):
    path = write_nifti(name="scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-20])
    assert reasons(path) == ("truncated",)


def test_data_after_the_volume_are_not_read(write_nifti, voxels):
    path = write_nifti(name="scan.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(5 << 20)))
    assert reasons(path) == ("trailing_bytes",)
    assert np.array_equal(read_volume(path).array[0], voxels)


REFUSED = {
    "bad_datatype": ("datatype", 32),
    "declared_size": ("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1]),
    "not_3d": ("dim", [4, 6, 5, 2, 2, 1, 1, 1]),
    "bad_size": ("dim", [3, 0, 5, 4, 1, 1, 1, 1]),
    "bad_rescale": ("scl_slope", np.inf),
    "bad_header": ("vox_offset", np.nan),
    "truncated": ("vox_offset", 1e9),
    "bad_orientation": ("srow_x", [0, 0, 0, 0]),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_header_without_meaning_is_refused_by_name(write_nifti, code):
    assert reasons(header(write_nifti(), *REFUSED[code])) == (code,)


def test_no_form_code_is_no_geometry(write_nifti):
    path = header(header(write_nifti(), "sform_code", 0), "qform_code", 0)
    assert reasons(path) == ("no_geometry",)


def test_opposite_handedness_of_equal_rank_is_refused(write_nifti):
    path = write_nifti()
    header(header(path, "srow_x", [-0.7, 0, 0, 10]), "sform_code", 1)
    assert reasons(path) == ("left_right_ambiguous",)


def test_a_slope_of_zero_means_do_not_scale(write_nifti, voxels):
    path = header(header(write_nifti(), "scl_slope", 0), "scl_inter", -1024)
    assert np.array_equal(read_volume(path).array[0], voxels)
