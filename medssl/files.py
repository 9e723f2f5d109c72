"""Files that are written whole or not at all, on a disk that may fill up."""

import errno
import functools
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medssl.errors import MedSSLError, NoSpaceError, UsageError

Bytes = bytes | memoryview

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp")


def write_whole(path: Path, parts: Iterable[Bytes]) -> None:
    """Write a file so that a reader sees the old one or the new one, also after a power cut.

    Several processes may write the same path: each has a temporary file of its own, and the last one stays.

    Args:
        path: Where the file goes; its folder is made.
        parts: The content, piece by piece.

    Raises:
        NoSpaceError: The disk is full; what was there before is intact.
        UsageError: The folder may not be written to.
    """
    with _refusals(path):
        with _temporary(path, parts) as temporary:
            temporary.replace(path)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text as `write_whole` writes bytes."""
    write_whole(path, [text.encode()])


def write_new(path: Path, parts: Iterable[Bytes]) -> bool:
    """Write a file as `write_whole` does unless it is there already; of several processes one does. Returns whether it was written."""
    with _refusals(path):
        with _temporary(path, parts) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        _sync(path.parent)
    return True


def refusal(error: OSError) -> MedSSLError:
    """What the system refuses, as an error of ours that names the file without its folder."""
    if error.errno in _FULL:
        return NoSpaceError("no space left on the disk of the out folder; free some and run the same command again")
    name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes | os.PathLike) else "a file"
    return UsageError(f"cannot use {name}: {error.strerror or type(error).__name__}; look at the paths given and the rights to them")


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the disk refuses, as errors of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError(f"no space left to write {path.name}; free some and run the same command again") from error
        if error.errno in _FORBIDDEN:
            raise UsageError(f"cannot write {path.name} into {path.parent.resolve().name}: {error.strerror}; give another place") from error
        raise


@contextmanager
def _temporary(path: Path, parts: Iterable[Bytes]) -> Iterator[Path]:
    """The content in a file beside `path`, on disk; what is left of it is removed."""
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers of this machine left, here or below, that were killed before they were done."""
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and found["host"] == _host() and not _is_running(int(found["pid"])):
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a rename last; file systems that cannot do this for folders are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
