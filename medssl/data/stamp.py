"""Whether the files of a scan are still those that were read, as the file system tells them apart."""

import hashlib
import importlib.metadata
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from medssl.data.manifest import ManifestRow
from medssl.errors import UsageError
from medssl.io.discover import find_sources
from medssl.io.files import stands_there
from medssl.io.options import ReadOptions
from medssl.io.sources import SERIES

_POINTS_ELSEWHERE = (".hdr", ".img", ".nhdr", ".mhd")  # the voxels lie in other files of the folder
_MAY_POINT_ELSEWHERE = (".nii", ".nrrd", ".mha")  # they may lie in one other file
_RACE_NS = 100_000_000  # a file changed so shortly ago may change again without a new time


def stamp_of(folder: Path, row: ManifestRow, options: ReadOptions, *, version: str) -> tuple[str, bool]:
    """A digest of the files a scan is read from, and whether they have been left alone for a while.

    Args:
        folder: The data folder.
        row: The scan.
        options: How it is read.
        version: Of what is remembered; another one is another stamp.
    """
    found = [f"{version} {importlib.metadata.version('medssl')} {row.image} {row.lesion} {row.modality}"]
    found += [f"{name} {value}" for name, value in options.chosen().items()]
    found += [f"defaced {row.defaced}"] if row.defaced else []
    newest = 0
    for part in filter(None, (*row.sources, row.lesion, row.defaced)):
        for path in _files(folder / part, folder):
            facts = path.stat()
            newest = max(newest, facts.st_ctime_ns, facts.st_mtime_ns)
            found.append(f"{path.relative_to(folder)} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}")
    return hashlib.sha256("\n".join(found).encode(errors="surrogateescape")).hexdigest(), time.time_ns() - newest > _RACE_NS


def _files(path: Path, root: Path) -> Iterator[Path]:
    """The files that a scan may be read from: one, with the one that it points to, those of a series, all of a folder, or an archive."""
    if SERIES.fullmatch(path.name) and path.parent.is_dir() and not path.exists():
        with suppress(UsageError):  # that it is gone is said by reading it
            yield from (file.path for each in find_sources(path) for file in each.files)
        return
    while not stands_there(path) and path != root:
        path = path.parent
    if path.is_file() and path.suffix.lower() in _POINTS_ELSEWHERE:
        path = path.parent
    if path.is_file():
        pointed = [each.data for each in find_sources(path)] if path.suffix.lower() in _MAY_POINT_ELSEWHERE else []
        yield from (path, *(data for data in pointed if data is not None and data.is_file()))
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names) if (Path(folder) / name).exists())
