"""Files below a folder, told by their content, and what one scan is read from."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medssl.errors import ScanError, UsageError
from medssl.io.dicom_header import BadFile, DicomFile, read_header
from medssl.io.files import HEAD_BYTES, claimed_format, read_file, sniff

_SIDE_SUFFIXES = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".rst", ".yaml", ".yml", ".toml", ".log", ".xml", ".html", ".pdf", ".bval", ".bvec"}
)
_SIDE_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "citation", "changes", "authors", "thumbs.db", "desktop.ini"})
_SUFFIX = re.compile(r"(\.nii)?\.[A-Za-z0-9]{1,6}$")
_MAX_ID = 100


@dataclass(frozen=True, eq=False)
class Entry:
    """A regular file: its place, its format by content, the format its name claims, and its header where it is DICOM."""

    path: Path
    place: PurePosixPath  # below the scanned root
    kind: str
    claim: str
    header: DicomFile | BadFile | None = None

    @property
    def is_side_file(self) -> bool:
        """A table, text or the like that nobody means as a scan."""
        name = self.place.name.lower()
        return (
            name.startswith(".")
            or self.place.suffix.lower() in _SIDE_SUFFIXES
            or self.place.stem.lower() in _SIDE_NAMES
            or name in _SIDE_NAMES
        )


@dataclass(frozen=True, eq=False)
class Source:
    """What one scan is read from.

    Args:
        scan_id: Unique among the sources of one folder.
        source: Path below the scanned folder, with `/`.
        format: Format by content.
        path: The file, or the folder of a DICOM series.
        problems: Codes for which it is refused without reading further.
        warnings: Codes found beside it.
        files: Headers of a DICOM series.
        modality: DICOM modality, where known.
        patient: Digest of the DICOM patient id, where known.
    """

    scan_id: str
    source: str
    format: str
    path: Path
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[DicomFile, ...] = field(default=(), repr=False)
    modality: str = ""
    patient: str = ""


@dataclass(frozen=True)
class Walk:
    """What stands below a root: regular files, and notes (codes) about folders with links or special files in them."""

    entries: tuple[Entry, ...]
    notes: dict[PurePosixPath, set[str]]
    hollow: tuple[PurePosixPath, ...]  # folders called like a scan, without any file


def walk(root: Path) -> Walk:
    """Regular files below a folder, or the one file given; links and special files are noted, never opened.

    Raises:
        UsageError: `not_found`, or no right to list the folder.
    """
    if not root.exists():
        raise UsageError(f"not_found: {root.name or 'the folder'} does not exist; give a folder with scans")
    if not root.is_dir():
        return Walk((entry(root.resolve(), PurePosixPath(root.name)),), {}, ())
    entries: list[Entry] = []
    notes: dict[PurePosixPath, set[str]] = {}
    hollow: list[PurePosixPath] = []
    pending = [(root.resolve(), PurePosixPath())]
    while pending:
        folder, place = pending.pop()
        before = len(entries) + len(pending)
        for found in _listing(folder, place):
            inner = place / found.name
            if found.is_symlink():
                notes.setdefault(place, set()).add("symlink_skipped")
            elif found.is_dir(follow_symlinks=False):
                pending.append((folder / found.name, inner))
            elif found.is_file(follow_symlinks=False):
                entries.append(entry(folder / found.name, inner))
            else:
                notes.setdefault(place, set()).add("special_file_skipped")
        if len(entries) + len(pending) == before and claimed_format(place.name):
            hollow.append(place)
    return Walk(tuple(sorted(entries, key=lambda each: each.place)), notes, tuple(sorted(hollow)))


def _listing(folder: Path, place: PurePosixPath) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except OSError as error:
        raise UsageError(f"the folder {place} cannot be listed ({error.strerror}); give read rights to it") from error


def entry(path: Path, place: PurePosixPath) -> Entry:
    """A file with its format by content; a DICOM header is read here, once."""
    claim = claimed_format(path.name)
    try:
        head, _ = read_file(path, length=HEAD_BYTES)
    except ScanError as error:
        return Entry(path, place, "unreadable", claim, BadFile(error.code))
    kind = sniff(head, path.name)
    if kind != "dicom":
        return Entry(path, place, kind, claim, BadFile("empty_file") if kind == "empty" else None)
    header = read_header(path)
    if isinstance(header, BadFile) and head[128:132] != b"DICM" and claim != "dicom" and not header.series:
        return Entry(path, place, "unknown", claim)  # looked like a data set by chance
    return Entry(path, place, "dicom", claim, header)


def unique(names: Iterator[str] | list[str]) -> list[str]:
    """The names, with a number behind each one that stood before (case ignored, as some file systems do)."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def slug(place: PurePosixPath) -> str:
    """An id of letters, digits, `_` and `-` made of a path without its extension."""
    text = place.as_posix()
    stem = _SUFFIX.sub("", text) or text
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")
    if clean and clean == stem.replace("/", "-") and len(clean) <= _MAX_ID:
        return clean
    return f"{clean[:_MAX_ID].strip('-') or 'scan'}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"


def series_id(*parts: str) -> str:
    """`series-` and 10 hex digits of the series UID (and the group, where one series gives several scans)."""
    return "series-" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]
