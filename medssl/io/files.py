"""Opening files nobody vouches for: regular files only, no link followed, content told by its first bytes."""

import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from medssl.errors import ScanError

HEAD_BYTES = 32 * 1024  # the header of most DICOM slices fits
_METAIMAGE = (b"ObjectType", b"NDims")
_MAX_NAME_BYTES = 4000
_APPLE_DOUBLE = b"\x00\x05\x16\x07"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"NRRD000", "nrrd"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # without members
)
_CLAIMS = {
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".nii": "nifti",
    ".hdr": "nifti",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".mgz": "mgh",
    ".mgh": "mgh",
    ".zip": "zip",
}


@dataclass(frozen=True)
class FileStamp:
    """What a file was when it was found, to notice a change before it is read."""

    size: int
    modified_ns: int


def read_file(path: Path, *, start: int = 0, length: int | None = None, stamp: FileStamp | None = None) -> tuple[bytes, FileStamp]:
    """Bytes of a regular file.

    Args:
        path: The file; a link is refused.
        start: First byte.
        length: At most this many bytes; to the end where it is None.
        stamp: Size and time that the file must still have.

    Raises:
        ScanError: `not_found`, `not_a_file`, `unreadable_file`, `changed_while_read`.
    """
    handle, found = _open(path, stamp)
    try:
        return _read(handle, start, max(0, min(found.size - start, found.size if length is None else length))), found
    finally:
        os.close(handle)


@contextmanager
def open_file(path: Path, *, stamp: FileStamp | None = None) -> Iterator[tuple[BinaryIO, FileStamp]]:
    """A regular file, open for reading without a buffer, with its size and time.

    Raises:
        ScanError: `not_found`, `not_a_file`, `unreadable_file`, `changed_while_read`.
    """
    handle, found = _open(path, stamp)
    with os.fdopen(handle, "rb", buffering=0) as file:
        yield file, found


def _open(path: Path, stamp: FileStamp | None) -> tuple[int, FileStamp]:
    """The handle of a regular file, which the caller closes, and what the file is."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ScanError("not_found", "the file does not exist") from error
    except OSError as error:
        raise ScanError("unreadable_file", f"cannot open the file ({error.strerror})") from error
    facts = os.fstat(handle)
    found = FileStamp(facts.st_size, facts.st_mtime_ns)
    if stat.S_ISREG(facts.st_mode) and stamp in (None, found):
        return handle, found
    os.close(handle)
    if not stat.S_ISREG(facts.st_mode):
        raise ScanError("not_a_file", "found a folder, link or device, need a regular file")
    raise ScanError("changed_while_read", "the file changed since it was found; run again")


def stands_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether a path leads to something, of a kind; not where it cannot be looked at, as with a name that is too long for a disk."""
    try:
        return kind(path)
    except OSError:
        return False


def _read(handle: int, start: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        try:
            part = os.pread(handle, min(length, 1 << 30), start)
        except OSError as error:
            raise ScanError("unreadable_file", f"cannot read the file ({error.strerror})") from error
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_into(path: Path, buffer: memoryview, *, start: int, stamp: FileStamp) -> None:
    """Fill a buffer with bytes of a regular file.

    Raises:
        ScanError: `truncated` where the file ends first, and those of `open_file`.
    """
    handle, _ = _open(path, stamp)
    try:
        done = 0
        while done < len(buffer):
            count = os.preadv(handle, [buffer[done:]], start + done)
            if count == 0:
                raise ScanError("truncated", "the pixel data end too early")
            done += count
    except OSError as error:
        raise ScanError("unreadable_file", f"cannot read the file ({error.strerror})") from error
    finally:
        os.close(handle)


def inner_place(name: str) -> PurePosixPath:
    """The name that a header or an archive gives to a file, as a path below the folder that it belongs to.

    Raises:
        ScanError: `path_escape` for `..`, an absolute path, a drive, a URL or a backslash; `bad_header` for control characters.
    """
    if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) or ".." in name.split("/"):
        raise ScanError("path_escape", "the name of a file leads out of its folder")
    place = PurePosixPath(name)
    if not place.parts or not all(" " <= each != "\x7f" for each in name) or len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise ScanError("bad_header", "the name of a file is empty, too long or holds control characters")
    return place


def read_beside(header: Path, name: str, *, start: int = 0, length: int | None = None) -> tuple[bytes, FileStamp]:
    """Bytes of the file that a header names, which must lie in the header's folder or below; no link is followed. Trust rule 13.

    Raises:
        ScanError: `path_escape`, `bad_header`, and those of `read_file`.
    """
    place = inner_place(name)
    try:
        linked = any((header.parent / part).is_symlink() for part in (place, *place.parents[:-1]))
    except OSError as error:
        raise ScanError("bad_header", f"the header names a file that cannot be ({error.strerror})") from error
    if linked:
        raise ScanError("path_escape", "the data of a header lie behind a link")
    return read_file(header.parent / place, start=start, length=length)


def pair_image(header: Path) -> Path:
    """The `.img` of a NIfTI pair, by the name of its `.hdr`."""
    return header.with_suffix(".IMG" if header.suffix.isupper() else ".img")


def claimed_format(name: str) -> str:
    """The format that a file's name promises, empty where it promises none."""
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return "nifti"
    stem, dot, suffix = lower.rpartition(".")
    return _CLAIMS.get(dot + suffix, "") if stem else ""


def is_apple_double(head: bytes, name: str) -> bool:
    """Whether `._x.dcm` holds what macOS knows of `x.dcm` beside it, on a disk that has no place for that. RFC 1740."""
    return name.startswith("._") and head.startswith(_APPLE_DOUBLE)


def sniff(head: bytes, name: str) -> str:
    """The format of a file by its first bytes.

    Args:
        head: The first bytes, 1 KiB or more where the file has them.
        name: Used where the content alone leaves a doubt.

    Returns:
        `dicom`, `nifti`, `png`, `jpeg`, `tiff`, `nrrd`, `metaimage`, `mgh`, `zip`, `empty` or `unknown`.
    """
    if not head:
        return "empty"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:2] == b"\x1f\x8b":
        return _sniff_gzip(head, name)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind if kind != "zip" or _may_be_archive(name) else "unknown"
    if _is_nifti(head, name):
        return "nifti"
    if head[:4] == b"\x00\x00\x00\x01" and claimed_format(name) == "mgh":
        return "mgh"
    if head.startswith(_METAIMAGE) or (claimed_format(name) == "metaimage" and b"ElementDataFile" in head):
        return "metaimage"
    return "dicom" if looks_like_dataset(head) else "unknown"


def _may_be_archive(name: str) -> bool:
    """Office files, model weights and the like are zip archives too, under other names."""
    return claimed_format(name) == "zip" or not Path(name).suffix


def _is_nifti(head: bytes, name: str) -> bool:
    if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00"):
        return True
    cut = len(head) < 348 and head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
    return cut and claimed_format(name) == "nifti"


def _sniff_gzip(head: bytes, name: str) -> str:
    claim = claimed_format(name)
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, 600)
    except zlib.error:
        inner = b""
    if _is_nifti(inner, name):
        return "nifti"
    return claim if claim in ("nifti", "mgh") else "unknown"


def looks_like_dataset(head: bytes) -> bool:
    """Whether bytes without preamble begin like a DICOM data set (group 0002 or 0008, a plausible first element)."""
    if len(head) < 16:
        return False
    for order in ("little", "big"):
        group = int.from_bytes(head[:2], order)
        element = int.from_bytes(head[2:4], order)
        if group not in (0x0002, 0x0008) or element > 0x0070:
            continue
        length = int.from_bytes(head[4:8], order)
        if head[4:6] in (b"UL", b"CS", b"UI", b"OB", b"DA", b"TM", b"LO") or (0 < length <= 1024 and length % 2 == 0):
            return True
    return False
