"""Files that are written whole or not at all, on a disk that may fill up."""

import csv
import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import NoSpaceError, ScanError, UsageError
from medssl.io.files import read_file

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one step, with the folders above it; a reader sees the old file or the new one.

    Raises:
        NoSpaceError: The disk is full; what was there before is intact.
        UsageError: The folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError("no space left in the out folder; free some and run the same command again, it goes on") from error
        raise UsageError(f"the out folder cannot be written ({error.strerror}); give another") from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def add_file(path: Path, content: bytes) -> None:
    """Write a file that is not there yet; the very same file is left as it is.

    Raises:
        ScanError: `conflicting_slices` where another file has its name.
        NoSpaceError, UsageError: As `write_file`.
    """
    if not os.path.lexists(path):
        write_file(path, content)
    elif read_file(path)[0] != content:
        raise ScanError("conflicting_slices", "another image has been written under the same instance UID")


def merge_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table; rows of an older one stay where their first cell is none of this run's."""
    replaced = {row[0] for row in rows}
    older: list[list[str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            older = [row for row in list(csv.reader(file))[1:] if row and row[0] not in replaced]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(columns), *older, *rows])
    write_file(path, text.getvalue().encode())
