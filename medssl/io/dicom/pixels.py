"""Stored pixel values of one DICOM file, plain or compressed. PS3.5 section 8 and annex A.4."""

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
from pydicom.encaps import generate_frames

from medssl.errors import ScanError
from medssl.io.decoding.codecs import FrameSpec, decodable, extend_sign
from medssl.io.decoding.pool import decode_safely
from medssl.io.dicom.elements import EXPLICIT, IMPLICIT, Parsed, parse
from medssl.io.dicom.header import DicomFile
from medssl.io.files import read_file
from medssl.volume import Array

_PLAIN = frozenset({IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SPLIT_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, OSError, EOFError, struct.error)


def supported(syntax: str) -> bool:
    """Whether pixels of a transfer syntax can be read."""
    return syntax in _PLAIN or decodable(syntax)


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
        values = _plain(file)
        return values if file.floating else extend_sign(values, spec_of(file)), ()
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
    values = np.frombuffer(data, dtype=f"{'>' if file.big_endian else '<'}{'f' if file.floating else 'u'}{file.allocated // 8}")
    if file.big_endian and file.allocated == 8 and file.pixels.vr == b"OW" and values.size % 2 == 0:
        values = values.reshape(-1, 2)[:, ::-1].reshape(-1)  # PS3.5 7.3: bytes of an OW word are swapped
    return values.reshape(len(file.frames), file.rows, file.columns)


def _compressed(file: DicomFile) -> tuple[Array, tuple[str, ...]]:
    data, _ = read_file(file.path, start=file.pixels.offset, stamp=file.stamp)
    found = [decode_safely(spec_of(file), frame) for frame in _split(data, len(file.frames))]
    if len(found) != len(file.frames):
        raise ScanError("corrupt_codestream", f"found {len(found)} compressed frames of {len(file.frames)}")
    notes = ("pixelrep_mismatch",) if any(contradicts for _, contradicts in found) else ()
    return np.stack([values for values, _ in found]), notes


def spec_of(file: DicomFile) -> FrameSpec:
    """What the header of a file says of each of its frames."""
    return FrameSpec(file.syntax, file.rows, file.columns, file.allocated, file.stored, file.signed, file.photometric)


def _split(data: bytes, frames: int) -> Iterator[bytes]:
    try:
        yield from generate_frames(data, number_of_frames=frames)
    except _SPLIT_ERRORS as error:
        raise ScanError("corrupt_codestream", "the fragments of the pixel data are damaged or absent") from error
