import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_lossless import decode_lossless


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_slow_way_gives_the_same_samples(tmp_path, monkeypatch, dtype):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (30, 40)).astype(dtype)
    stream = encoded(picture, tmp_path)
    monkeypatch.setattr("medssl.io.decoding.jpeg_lossless._fast", lambda _: None)
    assert np.array_equal(decode_lossless(stream), picture)


def test_samples_of_the_fast_way_are_taken_only_where_they_give_the_bits_of_the_stream(tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16)
    stream = encoded(picture, tmp_path)
    wrong = picture.copy()
    wrong[7, 9] ^= 1
    monkeypatch.setattr("medssl.io.decoding.jpeg_lossless._fast", lambda _: wrong)
    assert np.array_equal(decode_lossless(stream), picture)


def test_the_fast_way_needs_no_second_look(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    picture = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    stream = encoded(picture, tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("decoded twice")

    monkeypatch.setattr("medssl.io.decoding.jpeg_lossless._differences", never)
    assert np.array_equal(decode_lossless(stream), picture)


def test_a_stream_overwritten_from_the_middle_is_refused(tmp_path):
    stream = encoded(np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16), tmp_path)
    half = len(stream) // 2
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decode_lossless(stream[:half] + b"\0" * (len(stream) - half))
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decode_lossless(stream[:half] + b"\0" * (len(stream) - half - 2) + b"\xff\xd9")


def test_a_stream_with_two_frame_headers_is_refused(tmp_path):
    stream = encoded(np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16), tmp_path)
    at = stream.index(b"\xff\xc3")
    length = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decode_lossless(stream[:at] + stream[at : at + length] + stream[at:])


def test_a_flipped_bit_gives_the_answer_of_the_slow_way(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    stream = encoded(generator.normal(1000, 20, (12, 16)).astype(np.uint16), tmp_path)
    damaged = []
    for bit in generator.integers(0, 8 * len(stream), 1000):
        changed = bytearray(stream)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(changed))
    fast = [answer(each) for each in damaged]
    monkeypatch.setattr("medssl.io.decoding.jpeg_lossless._fast", lambda _: None)
    assert fast == [answer(each) for each in damaged]


def answer(stream: bytes) -> str:
    """The samples or the reason of a refusal, as text."""
    try:
        return str(decode_lossless(stream).tolist())
    except ScanError as error:
        return error.code


@pytest.mark.parametrize("predictor", range(1, 8))
def test_the_fast_way_takes_every_predictor(monkeypatch, predictor):
    imagecodecs = pytest.importorskip("imagecodecs")
    picture = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    stream = imagecodecs.jpeg8_encode(picture, lossless=True, predictor=predictor, bitspersample=16)
    monkeypatch.setattr("medssl.io.decoding.jpeg_lossless._differences", lambda *_: pytest.fail("decoded twice"))
    assert np.array_equal(decode_lossless(stream), picture)
