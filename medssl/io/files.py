"""Opening files nobody vouches for: regular files only, no link followed, content told by its first bytes."""

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import ScanError

HEAD_BYTES = 32 * 1024  # the header of most DICOM slices fits
_SHORT = 1024  # enough for every other magic number

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"NRRD000", "nrrd"),
    (b"PK\x03\x04", "zip"),
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
        ScanError: `not_a_file`, `unreadable_file`, `changed_while_read`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ScanError("unreadable_file", f"cannot open the file ({error.strerror})") from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ScanError("not_a_file", "found a folder, link or device, need a regular file")
        found = FileStamp(facts.st_size, facts.st_mtime_ns)
        if stamp is not None and stamp != found:
            raise ScanError("changed_while_read", "the file changed since it was found; run again")
        file.seek(start)
        return _read(file.fileno(), max(0, min(facts.st_size - start, facts.st_size if length is None else length))), found


def _read(handle: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        try:
            part = os.read(handle, min(length, 1 << 30))
        except OSError as error:
            raise ScanError("unreadable_file", f"cannot read the file ({error.strerror})") from error
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def claimed_format(name: str) -> str:
    """The format that a file's name promises, empty where it promises none."""
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return "nifti"
    return _CLAIMS.get(Path(lower).suffix, "")


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
            return kind
    if _is_nifti(head, name):
        return "nifti"
    if head[:4] == b"\x00\x00\x00\x01" and claimed_format(name) == "mgh":
        return "mgh"
    if b"ElementDataFile" in head[:_SHORT] or head.startswith(b"ObjectType"):
        return "metaimage"
    return "dicom" if looks_like_dataset(head) else "unknown"


def _is_nifti(head: bytes, name: str) -> bool:
    if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00"):
        return True
    cut = len(head) < 348 and head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
    return cut and claimed_format(name) == "nifti"


def _sniff_gzip(head: bytes, name: str) -> str:
    claim = claimed_format(name)
    if claim == "mgh":
        return "mgh"
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, 600)
    except zlib.error:
        return "nifti" if claim == "nifti" else "unknown"
    return "nifti" if claim == "nifti" or _is_nifti(inner, name) else "unknown"


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
