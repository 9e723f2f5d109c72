import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from medssl.errors import ScanError
from medssl.io.jpeg_lossless import decode_lossless


def encoded(picture: np.ndarray, folder) -> bytes:
    """The picture as a lossless JPEG stream, written by GDCM through SimpleITK."""
    import SimpleITK

    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(folder / "picture.dcm"))
    writer.SetCompressor("JPEG")
    writer.UseCompressionOn()
    writer.Execute(SimpleITK.GetImageFromArray(picture[None]))
    return next(generate_frames(pydicom.dcmread(folder / "picture.dcm").PixelData, number_of_frames=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_comes_back_bit_by_bit(tmp_path, dtype):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (30, 40)).astype(dtype)
    assert np.array_equal(decode_lossless(encoded(picture, tmp_path)), picture)


def test_a_stream_overwritten_from_the_middle_is_refused(tmp_path):
    stream = encoded(np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16), tmp_path)
    half = len(stream) // 2
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decode_lossless(stream[:half] + b"\0" * (len(stream) - half))
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decode_lossless(stream[:half] + b"\0" * (len(stream) - half - 2) + b"\xff\xd9")
