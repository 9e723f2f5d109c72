"""Compressed frames of DICOM pixel data to stored values, one at a time; runs in a child process. PS3.5 annex A.4."""

import struct
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydicom.pixels.decoders.base import get_decoder

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_extended import decode_extended
from medssl.io.decoding.jpeg_lossless import decode_lossless
from medssl.volume import Array

_RLE = "1.2.840.10008.1.2.5"
_PLUGINS = {
    _RLE: "pydicom",
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "pillow",  # of 8 bits
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
_EXTENDED = "1.2.840.10008.1.2.4.51"
_LOSSLESS_JPEG = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_FRAME_MARKS = {  # of the kinds of JPEG that a transfer syntax allows
    "1.2.840.10008.1.2.4.50": {0xC0},
    "1.2.840.10008.1.2.4.51": {0xC0, 0xC1},
    "1.2.840.10008.1.2.4.57": {0xC3},
    "1.2.840.10008.1.2.4.70": {0xC3},
    "1.2.840.10008.1.2.4.80": {0xF7},
    "1.2.840.10008.1.2.4.81": {0xF7},
}
_MAX_RATIO = 1000  # of a compressed frame; more, beyond 16 MiB, is a lie
_HARMLESS = 16 << 20
_DECODER_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, OSError, EOFError, struct.error)


@dataclass(frozen=True)
class FrameSpec:
    """What the header says of a compressed frame.

    Args:
        syntax: Transfer syntax UID.
        rows: Height.
        columns: Width.
        allocated: BitsAllocated, 8, 16 or 32.
        stored: BitsStored.
        signed: PixelRepresentation is 1.
        photometric: `MONOCHROME1` or `MONOCHROME2`.
    """

    syntax: str
    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    photometric: str


@dataclass(frozen=True)
class StreamInfo:
    """What a compressed frame says about itself; `signed` is None where its format cannot tell."""

    rows: int
    columns: int
    precision: int
    components: int
    signed: bool | None


def decodable(syntax: str) -> bool:
    """Whether frames of a transfer syntax can be decoded."""
    return syntax in _PLUGINS or syntax in _LOSSLESS_JPEG


def decode_frame(spec: FrameSpec, frame: bytes) -> tuple[Array, bool]:
    """Stored values `(rows, columns)`, and whether the stream contradicts the sign that the header declares.

    Raises:
        ScanError: `corrupt_codestream`, `size_mismatch`, `declared_size`, `bad_transfer_syntax`, `bad_datatype`, `unsupported_bits`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders print values of tags
        values, signed = _decode_frame(spec, frame)
    return values, signed is not None and signed != spec.signed


def _decode_frame(spec: FrameSpec, frame: bytes) -> tuple[Array, bool | None]:
    declared = spec.rows * spec.columns * spec.allocated // 8
    if declared > max(_HARMLESS, _MAX_RATIO * len(frame)):
        raise ScanError("declared_size", f"{len(frame)} compressed bytes declare {declared >> 20} MiB")
    info = None
    if spec.syntax == _RLE:
        _check_rle(frame, spec)
    else:
        info = _check_stream(frame, spec)
    if spec.syntax in _LOSSLESS_JPEG:
        return extend_sign(decode_lossless(frame).astype(f"u{spec.allocated // 8}"), spec), None
    if spec.syntax == _EXTENDED and info is not None and info.precision > 8:
        return extend_sign(decode_extended(frame).astype(f"u{spec.allocated // 8}"), spec), None
    try:
        decoder = get_decoder(spec.syntax)
        values, _ = decoder.as_array(
            frame_item(frame), raw=True, decoding_plugin=_PLUGINS[spec.syntax], **cast("Any", _options(spec, info))
        )
    except _DECODER_ERRORS as error:
        raise ScanError("corrupt_codestream", "the compressed pixel data cannot be decoded") from error
    if values.shape != (spec.rows, spec.columns):
        raise ScanError("size_mismatch", f"the stream decodes to {values.shape}")
    signed = info.signed if info is not None else None
    return extend_sign(values.astype(f"u{spec.allocated // 8}"), spec, signed=signed or spec.signed), signed


def frame_item(frame: bytes) -> bytes:
    """One frame as encapsulated pixel data with an empty offset table, as the decoders of pydicom want it."""
    padded = frame + b"\0" * (len(frame) % 2)
    return b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + struct.pack("<I", len(padded)) + padded + b"\xfe\xff\xdd\xe0\0\0\0\0"


def _options(spec: FrameSpec, info: StreamInfo | None) -> dict[str, object]:
    # the sign is the stream's where it has one, so that pydicom does not reinterpret its values
    signed = spec.signed if info is None or info.signed is None else info.signed
    return {
        "rows": spec.rows,
        "columns": spec.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": spec.allocated,
        "bits_stored": spec.stored,
        "pixel_representation": int(signed),
        "photometric_interpretation": spec.photometric,
        "pixel_keyword": "PixelData",
    }


def _check_rle(frame: bytes, spec: FrameSpec) -> None:
    if len(frame) < 64:
        raise ScanError("corrupt_codestream", "the RLE header is cut")
    count, *offsets = struct.unpack("<16I", frame[:64])
    used = offsets[:count] if count <= 15 else []
    if count != spec.allocated // 8 or used[0] != 64 or sorted(set(used)) != used or used[-1] >= len(frame):
        raise ScanError("corrupt_codestream", "the RLE segment table is damaged")


def _check_stream(frame: bytes, spec: FrameSpec) -> StreamInfo:
    body = frame.rstrip(b"\0")
    body = body.removesuffix(b"\xff") if body.endswith(b"\xff\xd9\xff") else body  # another way to pad
    try:
        info = _jpeg2000_info(body) if spec.syntax in _JPEG2000 | _HTJ2K else _jpeg_info(body, spec.syntax)
    except (struct.error, IndexError) as error:
        raise ScanError("corrupt_codestream", "the compressed stream is cut in its header") from error
    if info.components != 1:
        raise ScanError("bad_datatype", "the compressed stream is in colour")
    if (info.rows, info.columns) != (spec.rows, spec.columns):
        raise ScanError("size_mismatch", f"the stream has {info.rows} x {info.columns}, the header {spec.rows} x {spec.columns}")
    if info.precision > spec.allocated:
        raise ScanError("unsupported_bits", f"the stream has {info.precision} bits a pixel, {spec.allocated} are allocated")
    if not body.endswith(b"\xff\xd9"):
        raise ScanError("corrupt_codestream", "the compressed stream has no end mark")
    return info


def _jpeg2000_info(data: bytes) -> StreamInfo:
    start = data.find(b"\xff\x4f\xff\x51", 0, 512) if data[4:8] == b"jP  " else 0
    if start < 0 or data[start : start + 4] != b"\xff\x4f\xff\x51":
        raise ScanError("bad_transfer_syntax", "the pixel data are no JPEG 2000 stream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    components, depth, step_x, step_y = struct.unpack_from(">HBBB", data, start + 40)
    if (step_x, step_y) != (1, 1):
        raise ScanError("corrupt_codestream", "the JPEG 2000 stream has fewer samples than pixels")
    return StreamInfo(y1 - y0, x1 - x0, (depth & 0x7F) + 1, components, bool(depth & 0x80))


def _jpeg_info(data: bytes, syntax: str) -> StreamInfo:
    if data[:2] != b"\xff\xd8":
        raise ScanError("bad_transfer_syntax", "the pixel data are no JPEG stream")
    at = 2
    while True:
        mark, code, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ScanError("corrupt_codestream", "the segments of the compressed stream are damaged")
        if code == 0xF7 or (0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)):
            if code not in _FRAME_MARKS[syntax]:
                raise ScanError("bad_transfer_syntax", "the stream is of another kind of JPEG than the transfer syntax says")
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
            return StreamInfo(rows, columns, precision, components, None)
        at += 2 + length


def extend_sign(values: Array, spec: FrameSpec, *, signed: bool | None = None) -> Array:
    """Values with the bits above BitsStored masked and the sign extended; `signed` overrules the header."""
    size = spec.allocated // 8
    signed = spec.signed if signed is None else signed
    native = values.astype(f"u{size}", copy=False)
    if spec.stored == spec.allocated:
        same: Array = native.view(f"{'i' if signed else 'u'}{size}")
        return same
    shift = spec.allocated - spec.stored
    lifted: Array = np.left_shift(native, np.array(shift, dtype=native.dtype))
    kind = f"{'i' if signed else 'u'}{size}"
    lowered: Array = np.right_shift(lifted.view(kind), np.array(shift, dtype=kind))
    return lowered
