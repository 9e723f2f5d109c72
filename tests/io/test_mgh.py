import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl.io.discover import read_folder, read_volume

VALUES = np.random.default_rng(0).integers(0, 100, (3, 4, 5))
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", [10, 20, 15], degrees=True).as_matrix() * [0.7, 0.9, 2.5]
AFFINE[:3, 3] = -10, 20.5, 3


def write(folder, *, dtype=np.int16, name="scan.mgz", values=VALUES, affine=AFFINE):
    nib.save(nib.freesurfer.MGHImage(values.astype(dtype), affine), folder / name)
    return folder / name


def changed(path, at: int, content: bytes):
    """The plain file with some bytes of its header replaced."""
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + content + raw[at + len(content) :])
    return path


def reasons(path):
    (reading,) = read_folder(path)
    return reading.record.reasons


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("name", ["scan.mgh", "scan.mgz"])
def test_every_type_comes_back_as_nibabel_wrote_it(tmp_path, name, dtype):
    path = write(tmp_path, dtype=dtype, name=name)
    volume = read_volume(path)
    assert reasons(path) == ()
    assert np.array_equal(volume.array[0], VALUES)
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)


def test_any_stored_orientation_comes_out_in_ras(tmp_path):
    assert np.array_equal(read_volume(write(tmp_path, affine=AFFINE @ np.diag([-1, 1, 1, 1]))).array[0], VALUES[::-1])


REFUSED = {
    "not_3d": (16, b"\0\0\0\2"),
    "bad_size": (4, b"\0\0\0\0"),
    "declared_size": (4, b"\0\1\0\0\0\1\0\0"),
    "truncated": (4, b"\0\0\0\5"),
    "bad_datatype": (20, b"\0\0\0\2"),
    "no_geometry": (28, b"\0\0"),
    "bad_pixelspacing": (30, b"\0\0\0\0"),
    "bad_orientation": (42, b"\x7f\xc0\0\0"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_header_without_meaning_is_refused_by_name(tmp_path, code):
    assert reasons(changed(write(tmp_path, name="scan.mgh"), *REFUSED[code])) == (code,)


def test_a_centre_that_is_no_number_is_refused(tmp_path):
    assert reasons(changed(write(tmp_path, name="scan.mgh"), 78, b"\x7f\xc0\0\0")) == ("bad_header",)


def test_a_gzip_that_is_cut_or_damaged_is_refused(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert reasons(path) == ("truncated",)
    path.write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    assert reasons(path) == ("corrupt_gzip",)


def test_a_small_gzip_that_declares_very_much_is_refused(tmp_path):
    header = bytearray(gzip.decompress(write(tmp_path).read_bytes())[:284])
    header[4:16] = b"\0\0\4\0" * 3  # 1024 voxels each way
    path = tmp_path / "bomb.mgz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(1 << 20)))
    assert reasons(path) == ("inflated_size",)


def test_a_nifti_file_called_mgz_is_read_with_a_warning(tmp_path):
    image = nib.Nifti1Image(VALUES.astype(np.int16), AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "scan.nii.gz")
    assert reasons((tmp_path / "scan.nii.gz").rename(tmp_path / "scan.mgz")) == ("wrong_extension",)


def test_text_called_mgz_is_no_gzip(tmp_path):
    (tmp_path / "scan.mgz").write_text("<html>not found</html>")
    assert reasons(tmp_path / "scan.mgz") == ("corrupt_gzip",)
