"""Zip archives: names are checked before anything is written, files go to a private folder that is always removed. Trust section 2.1."""

import errno
import hashlib
import os
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from medssl.errors import NoSpaceError, ScanError
from medssl.io.files import FileStamp, inner_place, open_file

MEMBER_CAP = 20_000  # an archive with as many members, or more, is refused
_TOTAL_CAP = 4 << 30
_RATIO, _HARMLESS = 200, 16 << 20  # inflated bytes a byte of archive, beyond what harms nobody
_STEP = 1 << 20
_END, _END_BYTES = b"PK\x05\x06", 22
_WIDE_END, _WIDE_END_BYTES, _LOCATOR_BYTES = b"PK\x06\x06", 56, 20
_ENTRY, _ENTRY_BYTES = b"PK\x01\x02", 46
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_OF_MACOS = "__MACOSX/"  # attributes of files, no files of their own
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error, IndexError)


@dataclass(frozen=True)
class Packed:
    """Where the files of one scan lie inside an archive.

    Args:
        archive: The zip file.
        stamp: What it was when the scan was found.
        members: Places of the files in it.
    """

    archive: Path
    stamp: FileStamp
    members: frozenset[PurePosixPath]


@contextmanager
def unpacked(
    archive: Path, *, members: Collection[PurePosixPath] | None = None, stamp: FileStamp | None = None
) -> Iterator[tuple[Path, FileStamp]]:
    """A private folder with the files of an archive, there as long as the context lasts; also the archive's stamp.

    Args:
        archive: A zip file.
        members: The places to unpack; all where it is None.
        stamp: What the archive must still be.

    Raises:
        ScanError: `path_escape`, `symlink`, `not_a_file`, `encrypted`, `member_count`, `inflated_size`, `conflicting_rows`,
            `corrupt_archive`, `unsupported_format`, `bad_header`, `unreadable_file`, `changed_while_read`.
        NoSpaceError: The folder for temporary files is full.
    """
    with tempfile.TemporaryDirectory(prefix="medssl-") as name, open_file(archive, stamp=stamp) as (file, found):
        folder = Path(name).resolve()
        _unpack(file, found.size, folder, members)
        yield folder, found


def _unpack(file: BinaryIO, size: int, folder: Path, members: Collection[PurePosixPath] | None) -> None:
    _check_count(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            files = _checked_files(archive, size)
            budget = max(_HARMLESS, min(_TOTAL_CAP, _RATIO * size))
            for place, info in files:
                if members is None or place in members:
                    with archive.open(info) as stream:
                        budget -= _write(stream, folder / place, budget)
    except _ZIP_ERRORS as error:
        raise ScanError("corrupt_archive", "the archive is damaged, or a checksum in it is wrong") from error
    except OSError as error:
        raise _as_medssl_error(error) from error


def _check_count(file: BinaryIO, size: int) -> None:
    """Count the members before a list of them is built: by the end record, and by their marks, as the record may lie."""
    file.seek(max(0, size - _END_BYTES - 0xFFFF))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        raise ScanError("corrupt_archive", "the archive has no end record")
    count, length = struct.unpack_from("<HI", tail, at + 10)
    end = size - len(tail) + at
    wide_count, wide_length = _wide_count(file, end)
    count, length = max(count, wide_count), max(length, wide_length)
    if count >= MEMBER_CAP:
        raise ScanError("member_count", f"the archive has {count} members")
    room = _WIDE_END_BYTES + _LOCATOR_BYTES
    if length // _ENTRY_BYTES >= MEMBER_CAP and _marks(file, max(0, end - length - room), end) >= MEMBER_CAP:
        raise ScanError("member_count", "the archive has more members than it declares")


def _wide_count(file: BinaryIO, end: int) -> tuple[int, int]:
    """Members and bytes of the directory as the end record of zip64 has them, zeros where there is none."""
    start = max(0, end - _LOCATOR_BYTES - _WIDE_END_BYTES)
    file.seek(start)
    record = file.read(end - start)
    if not record.startswith(_WIDE_END) or len(record) < _WIDE_END_BYTES:
        return 0, 0
    count, length = struct.unpack_from("<QQ", record, 32)
    return int(count), int(length)


def _marks(file: BinaryIO, start: int, end: int) -> int:
    file.seek(start)
    found, left, kept = 0, end - start, b""
    while left > 0 and (part := file.read(min(_STEP, left))):
        window = kept + part
        found += window.count(_ENTRY)
        left, kept = left - len(part), window[-len(_ENTRY) + 1 :]
    return found


def _checked_files(archive: zipfile.ZipFile, size: int) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """The files of an archive with their places, each checked before the first is written."""
    found: dict[str, tuple[PurePosixPath, zipfile.ZipInfo]] = {}
    infos = archive.infolist()
    places = [inner_place(info.orig_filename) for info in infos]
    declared = sum(info.file_size for info in infos)
    if declared > _TOTAL_CAP or declared > max(_HARMLESS, _RATIO * size):
        raise ScanError("inflated_size", f"{size >> 10} KiB of archive declare {declared >> 20} MiB")
    for place, info in zip(places, infos, strict=True):
        _check_member(info)
        if info.is_dir() or info.filename.startswith(_OF_MACOS):
            continue
        key = unicodedata.normalize("NFC", place.as_posix()).casefold()
        first = found.setdefault(key, (place, info))[1]
        if first is not info and _digest(archive, first) != _digest(archive, info):
            raise ScanError("conflicting_rows", "two members of the archive have one name and different content")
    return list(found.values())


def _check_member(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise ScanError("symlink", "a member of the archive is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ScanError("not_a_file", "a member of the archive is a device or a pipe")
    if info.flag_bits & _ENCRYPTED:
        raise ScanError("encrypted", "a member of the archive is encrypted")
    if info.compress_type not in _METHODS:
        raise ScanError("unsupported_format", f"compression method {info.compress_type} of the archive is not read")


def _digest(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    digest = hashlib.sha256()
    with archive.open(info) as stream:
        while part := stream.read(_STEP):
            digest.update(part)
    return digest.digest()


def _write(stream: IO[bytes], target: Path, budget: int) -> int:
    """Write one member and tell its length; what it really holds counts, not what it declares."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as file:
        while part := stream.read(_STEP):
            written += len(part)
            if written > budget:
                raise ScanError("inflated_size", "the members of the archive are larger than they declare")
            file.write(part)
    os.utime(target, (0, 0))  # the same stamp each time that it is unpacked
    return written


def _as_medssl_error(error: OSError) -> ScanError | NoSpaceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError("the disk of temporary files is full while an archive is unpacked; make room or set TMPDIR")
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return ScanError("conflicting_rows", "one name in the archive is a file and a folder")
    if error.errno == errno.EINVAL:  # a place that a file cannot have
        return ScanError("corrupt_archive", "the archive names places outside of it")
    return ScanError("unreadable_file", f"a member of the archive cannot be unpacked ({error.strerror})")
