import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_extended import _ZIGZAG, decode_extended
from medssl.io.discover import read_volume
from tests.io.conftest import make_slice

EXTENDED = UID("1.2.840.10008.1.2.4.51")
SYMBOLS = bytes(run << 4 | size for run in range(16) for size in range(15))  # each coded by its index, in 8 bits
PICTURE = np.random.default_rng(0).integers(0, 4096, (45, 38))


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def bits_of(value: int) -> str:
    size = abs(value).bit_length()
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def coded_block(block: list[int], before: int) -> str:
    difference = block[0] - before
    text = f"{len(bits_of(difference)):08b}{bits_of(difference)}"
    run = 0
    for value in block[1 : max((at for at in range(64) if block[at]), default=0) + 1]:
        run = run + 1 if not value else run
        if value:
            text += f"{SYMBOLS.index(0xF0):08b}" * (run // 16)
            text += f"{SYMBOLS.index(run % 16 << 4 | len(bits_of(value))):08b}{bits_of(value)}"
            run = 0
    return text if block[63] else f"{text}{0:08b}"


def table(place: int, symbols: bytes) -> bytes:
    return bytes([place, *bytes(7), len(symbols), *bytes(8)]) + symbols


def encoded(picture: np.ndarray, *, interval: int = 0, step: int = 7) -> bytes:
    """A 12 bit sequential JPEG stream, each coefficient to the nearest multiple of `step`."""
    rows, columns = picture.shape
    padded = np.pad(picture, ((0, -rows % 8), (0, -columns % 8)), mode="edge") - 2048.0
    at = np.arange(8)
    cosines = np.cos((2 * at[None] + 1) * at[:, None] * np.pi / 16) / 2 * np.where(at == 0, np.sqrt(0.5), 1)[:, None]
    blocks = padded.reshape(padded.shape[0] // 8, 8, -1, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    levels = np.rint(cosines @ blocks @ cosines.T / step).astype(int).reshape(-1, 64)[:, _ZIGZAG].tolist()
    interval = interval or len(levels)
    scan = b""
    for number, start in enumerate(range(0, len(levels), interval)):
        part = levels[start : start + interval]
        text = "".join(coded_block(block, before[0]) for block, before in zip(part, [[0], *part], strict=False))
        text += "1" * (-len(text) % 8)
        data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
        scan += (bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b"") + data
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + bytes([step]) * 64)
        + segment(0xC1, struct.pack(">BHHBBBB", 12, rows, columns, 1, 1, 0x11, 0))
        + segment(0xC4, table(0x00, bytes(range(16))) + table(0x10, SYMBOLS))
        + (segment(0xDD, struct.pack(">H", interval)) if interval < len(levels) else b"")
        + segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
        + scan
        + b"\xff\xd9"
    )


def as_dicom(stream: bytes, path: Path, shape: tuple[int, int]) -> Dataset:
    ds = make_slice(np.zeros((shape[1], shape[0], 1), np.int16), 0)
    ds.file_meta.TransferSyntaxUID = EXTENDED
    ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 12, 11, 0
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    return ds


@pytest.mark.parametrize("interval", [0, 4])
@pytest.mark.parametrize("step", [1, 7, 200])
def test_noise_is_decoded_bit_by_bit_as_simpleitk_does(tmp_path, step, interval):
    import SimpleITK

    stream = encoded(PICTURE, step=step, interval=interval)
    as_dicom(stream, tmp_path / "a.dcm", PICTURE.shape)
    wanted = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.dcm"))[0]
    found = decode_extended(stream)
    assert np.array_equal(found, wanted)
    assert np.abs(found.astype(int) - PICTURE).max() <= 4 * step


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_a_stream_of_a_real_encoder_is_decoded_as_simpleitk_does(name):
    import SimpleITK

    path = Path(get_testdata_file(name, download=False))
    picture = read_volume(path).array[0, :, :, 0].T[::-1, ::-1]
    assert np.array_equal(picture, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))[0])


def test_eight_bits_under_the_same_transfer_syntax_are_read(tmp_path):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((PICTURE >> 4).astype(np.uint8)).save(buffer, "JPEG", quality=100)
    ds = as_dicom(buffer.getvalue(), tmp_path / "a.dcm", PICTURE.shape)
    wanted = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read_volume(tmp_path / "a.dcm").array[0, ::-1, ::-1, 0].T, wanted)


def test_a_damaged_stream_is_refused():
    stream = encoded(PICTURE)
    half = len(stream) // 2
    for damaged in (stream[:half], stream[:half] + bytes(half), stream[:half] + bytes(half - 2) + b"\xff\xd9", stream[:-40] + b"\xff\xd9"):
        with pytest.raises(ScanError, match="corrupt_codestream"):
            decode_extended(damaged)


def test_the_frame_of_a_file_reaches_the_decoder_whole(tmp_path):
    stream = encoded(PICTURE)
    as_dicom(stream, tmp_path / "a.dcm", PICTURE.shape)
    (frame,) = generate_frames(dcmread(tmp_path / "a.dcm").PixelData, number_of_frames=1)
    assert np.array_equal(decode_extended(frame), decode_extended(stream))
