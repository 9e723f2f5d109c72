import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import Base

from medssl.errors import ScanError
from medssl.io.discover import read_folder, read_volume

PICTURE = np.arange(12, dtype=np.uint8).reshape(3, 4)

GREY, RGB = 0, 2  # colour types of PNG
CAP = "declared_size"


def write_png_header(path: Path, size: int, colour: int) -> None:
    """A PNG of size x size pixels that holds none of them."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", size, size, 8, colour, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_a_picture_is_shown_as_it_was_stored(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.array.shape == (1, 4, 3, 1)
    assert np.array_equal(volume.array[0, :, :, 0].T[::-1, ::-1], PICTURE)
    assert volume.nominal


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_kept(tmp_path, name):
    Image.fromarray(PICTURE.astype(np.uint16) * 5000).save(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == np.uint16
    assert volume.array.max() == 55000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_which_zero_is_white_is_inverted(tmp_path, dtype):
    values = PICTURE.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", np.iinfo(dtype).max - values, photometric="miniswhite")
    assert np.array_equal(read_volume(tmp_path / "a.tif").array[0, :, :, 0].T[::-1, ::-1], values)


def test_floating_point_numbers_of_which_zero_is_white_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PICTURE.astype(np.float32), photometric="miniswhite")
    with pytest.raises(ScanError, match="unsupported_format"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_picture_is_turned_as_its_orientation_says(tmp_path, name):
    exif = Image.Exif()
    exif[Base.Orientation] = 6  # the first row is on the right
    picture = np.repeat(np.repeat([[0, 0, 255], [0, 0, 0]], 8, axis=0), 8, axis=1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / name, exif=exif)
    turned = read_volume(tmp_path / name).array[0, :, :, 0].T[::-1, ::-1]
    assert np.array_equal(turned > 127, np.rot90(picture, -1) > 127)


def test_equal_channels_are_grey(tmp_path):
    Image.fromarray(np.stack([PICTURE] * 3, axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(read_volume(tmp_path / "a.png").array[0, :, :, 0].T[::-1, ::-1], PICTURE)


def test_colour_is_refused(tmp_path):
    Image.fromarray(np.stack([PICTURE, PICTURE, PICTURE + 1], axis=-1)).save(tmp_path / "a.png")
    with pytest.raises(ScanError, match="bad_datatype"):
        read_volume(tmp_path / "a.png")


def test_a_cut_picture_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == ("truncated",)


def test_a_picture_with_the_name_of_another_format_is_read_with_a_warning(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", format="PNG")
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == ("wrong_extension",)


def test_a_picture_called_dicom_is_refused(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.dcm", format="PNG")
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == ("not_dicom",)


@pytest.mark.parametrize(("size", "colour", "code"), [(9000, GREY, CAP), (7000, RGB, CAP), (5000, RGB, "inflated_size")])
def test_a_picture_of_far_more_pixels_than_bytes_is_refused_undecoded(tmp_path, size, colour, code):
    write_png_header(tmp_path / "a.png", size, colour)
    (reading,) = read_folder(tmp_path)
    assert reading.record.reasons == (code,)


def test_an_almost_empty_mask_of_a_mammogram_is_read(tmp_path):
    mask = Image.new("L", (4500, 5500))
    mask.putpixel((0, 0), 255)
    mask.save(tmp_path / "mask.png")
    assert read_volume(tmp_path / "mask.png", constant_allowed=True).array.max() == 255
