"""Stored pixel values of one DICOM file, plain or compressed. PS3.5 section 8 and annex A.4."""

import hashlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder

from medssl.errors import ScanError
from medssl.io.dicom_elements import EXPLICIT, IMPLICIT, Parsed, parse
from medssl.io.dicom_header import DicomFile
from medssl.io.files import read_file
from medssl.io.jpeg_lossless import decode_lossless
from medssl.volume import Array

_PLAIN = frozenset({IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_PLUGINS = {
    _RLE: "pydicom",
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
}
_JPEG2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
_HTJ2K = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_SEQUENTIAL = frozenset({"1.2.840.10008.1.2.4.50"})
_LOSSLESS_JPEG = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_MAX_RATIO = 1000  # of a compressed frame; more, beyond 16 MiB, is a lie
_HARMLESS = 16 << 20
_DECODER_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, OSError, EOFError, struct.error)


@dataclass(frozen=True)
class StreamInfo:
    """What a compressed frame says about itself; `signed` is None where its format cannot tell."""

    rows: int
    columns: int
    precision: int
    components: int
    signed: bool | None


def supported(syntax: str) -> bool:
    """Whether pixels of a transfer syntax can be read."""
    return syntax in _PLAIN or syntax in _PLUGINS or syntax in _LOSSLESS_JPEG


def stored_frames(file: DicomFile) -> tuple[Array, tuple[str, ...]]:
    """Stored values `(frames, rows, columns)` of a file, bits above BitsStored masked and the sign extended, and warnings.

    Raises:
        ScanError: `unsupported_transfer_syntax`, `bad_transfer_syntax`, `corrupt_codestream`, `size_mismatch`, `declared_size`,
            `changed_while_read`, `truncated`.
    """
    if not supported(file.syntax):
        raise ScanError("unsupported_transfer_syntax", "the transfer syntax has no decoder here")
    if (file.pixels.length is None) == (file.syntax in _PLAIN):
        raise ScanError("bad_transfer_syntax", "the pixel data are not stored as the transfer syntax says")
    if file.syntax in _PLAIN:
        return _signed(_plain(file), file), ()
    return _compressed(file)


def pixel_bytes_sha256(file: DicomFile) -> str:
    """Digest of the whole file, to tell a copy from another image under the same UID."""
    return hashlib.sha256(read_file(file.path, stamp=file.stamp)[0]).hexdigest()


def _plain(file: DicomFile) -> Array:
    length = len(file.frames) * file.rows * file.columns * file.allocated // 8
    if file.syntax == _DEFLATED:
        parsed: Parsed = parse(read_file(file.path, stamp=file.stamp)[0], complete=True, wanted=frozenset())
        data = (parsed.inflated or b"")[file.pixels.offset : file.pixels.offset + length]
    else:
        data, _ = read_file(file.path, start=file.pixels.offset, length=length, stamp=file.stamp)
    if len(data) < length:
        raise ScanError("truncated", "the pixel data end too early")
    values = np.frombuffer(data, dtype=f"{'>' if file.big_endian else '<'}u{file.allocated // 8}")
    if file.big_endian and file.allocated == 8 and file.pixels.vr == b"OW" and values.size % 2 == 0:
        values = values.reshape(-1, 2)[:, ::-1].reshape(-1)  # PS3.5 7.3: bytes of an OW word are swapped
    return values.reshape(len(file.frames), file.rows, file.columns)


def _signed(values: Array, file: DicomFile, *, signed: bool | None = None) -> Array:
    size = file.allocated // 8
    signed = file.signed if signed is None else signed
    native = values.astype(f"u{size}", copy=False)
    if file.stored == file.allocated:
        same: Array = native.view(f"{'i' if signed else 'u'}{size}")
        return same
    shift = file.allocated - file.stored
    lifted: Array = np.left_shift(native, np.array(shift, dtype=native.dtype))
    kind = f"{'i' if signed else 'u'}{size}"
    lowered: Array = np.right_shift(lifted.view(kind), np.array(shift, dtype=kind))
    return lowered


def _compressed(file: DicomFile) -> tuple[Array, tuple[str, ...]]:
    data, _ = read_file(file.path, start=file.pixels.offset, stamp=file.stamp)
    found: list[Array] = []
    notes: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders print values of tags
        for frame in _split(data, len(file.frames)):
            values, signed = _decode_frame(file, frame)
            if signed is not None and signed != file.signed:
                notes.add("pixelrep_mismatch")
            found.append(values)
    if len(found) != len(file.frames):
        raise ScanError("corrupt_codestream", f"found {len(found)} compressed frames of {len(file.frames)}")
    return np.stack(found), tuple(sorted(notes))


def _split(data: bytes, frames: int) -> Iterator[bytes]:
    try:
        yield from generate_frames(data, number_of_frames=frames)
    except _DECODER_ERRORS as error:
        raise ScanError("corrupt_codestream", "the fragments of the pixel data are damaged or absent") from error


def _decode_frame(file: DicomFile, frame: bytes) -> tuple[Array, bool | None]:
    declared = file.rows * file.columns * file.allocated // 8
    if declared > max(_HARMLESS, _MAX_RATIO * len(frame)):
        raise ScanError("declared_size", f"{len(frame)} compressed bytes declare {declared >> 20} MiB")
    info = None
    if file.syntax == _RLE:
        _check_rle(frame, file)
    else:
        info = _check_stream(frame, file)
    if file.syntax in _LOSSLESS_JPEG:
        return _signed(decode_lossless(frame).astype(f"u{file.allocated // 8}"), file), None
    try:
        decoder = get_decoder(file.syntax)
        values, _ = decoder.as_array(
            frame_item(frame), raw=True, decoding_plugin=_PLUGINS[file.syntax], **cast("Any", _options(file, info))
        )
    except _DECODER_ERRORS as error:
        raise ScanError("corrupt_codestream", "the compressed pixel data cannot be decoded") from error
    if values.shape != (file.rows, file.columns):
        raise ScanError("size_mismatch", f"the stream decodes to {values.shape}")
    signed = info.signed if info is not None else None
    return _signed(values.astype(f"u{file.allocated // 8}"), file, signed=signed or file.signed), signed


def frame_item(frame: bytes) -> bytes:
    """One frame as encapsulated pixel data with an empty offset table, as the decoders of pydicom want it."""
    padded = frame + b"\0" * (len(frame) % 2)
    return b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + struct.pack("<I", len(padded)) + padded + b"\xfe\xff\xdd\xe0\0\0\0\0"


def _options(file: DicomFile, info: StreamInfo | None) -> dict[str, object]:
    # the sign is the stream's where it has one, so that pydicom does not reinterpret its values
    signed = file.signed if info is None or info.signed is None else info.signed
    return {
        "rows": file.rows,
        "columns": file.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": file.allocated,
        "bits_stored": file.stored,
        "pixel_representation": int(signed),
        "photometric_interpretation": file.photometric,
        "pixel_keyword": "PixelData",
    }


def _check_rle(frame: bytes, file: DicomFile) -> None:
    if len(frame) < 64:
        raise ScanError("corrupt_codestream", "the RLE header is cut")
    count, *offsets = struct.unpack("<16I", frame[:64])
    used = offsets[:count] if count <= 15 else []
    if count != file.allocated // 8 or used[0] != 64 or sorted(set(used)) != used or used[-1] >= len(frame):
        raise ScanError("corrupt_codestream", "the RLE segment table is damaged")


def _check_stream(frame: bytes, file: DicomFile) -> StreamInfo:
    body = frame.rstrip(b"\0")
    try:
        info = _jpeg2000_info(body) if file.syntax in _JPEG2000 | _HTJ2K else _jpeg_info(body, file.syntax)
    except (struct.error, IndexError) as error:
        raise ScanError("corrupt_codestream", "the compressed stream is cut in its header") from error
    if info.components != 1:
        raise ScanError("bad_datatype", "the compressed stream is in colour")
    if (info.rows, info.columns) != (file.rows, file.columns):
        raise ScanError("size_mismatch", f"the stream has {info.rows} x {info.columns}, the header {file.rows} x {file.columns}")
    if info.precision > file.allocated:
        raise ScanError("unsupported_bits", f"the stream has {info.precision} bits a pixel, {file.allocated} are allocated")
    if not body.endswith(b"\xff\xd9"):
        raise ScanError("corrupt_codestream", "the compressed stream has no end mark")
    return info


def _jpeg2000_info(data: bytes) -> StreamInfo:
    start = data.find(b"\xff\x4f\xff\x51", 0, 512) if data[4:8] == b"jP  " else 0
    if start < 0 or data[start : start + 4] != b"\xff\x4f\xff\x51":
        raise ScanError("bad_transfer_syntax", "the pixel data are no JPEG 2000 stream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    components, depth = struct.unpack_from(">HB", data, start + 40)
    return StreamInfo(y1 - y0, x1 - x0, (depth & 0x7F) + 1, components, bool(depth & 0x80))


def _jpeg_info(data: bytes, syntax: str) -> StreamInfo:
    if data[:2] != b"\xff\xd8":
        raise ScanError("bad_transfer_syntax", "the pixel data are no JPEG stream")
    allowed = {0xF7} if syntax in _JPEG_LS else {0xC3} if syntax in _LOSSLESS_JPEG else {0xC0}
    at = 2
    while True:
        mark, code, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ScanError("corrupt_codestream", "the segments of the compressed stream are damaged")
        if code == 0xF7 or (0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)):
            if code not in allowed:
                raise ScanError("bad_transfer_syntax", "the stream is of another kind of JPEG than the transfer syntax says")
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
            return StreamInfo(rows, columns, precision, components, None)
        at += 2 + length
