"""Files below a folder, told by their content, and what one scan is read from."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medssl.errors import ScanError, UsageError
from medssl.io import metaimage, nrrd
from medssl.io.archive import Packed
from medssl.io.dicom.header import BadFile, DicomFile
from medssl.io.dicom.templates import HeaderReader
from medssl.io.files import claimed_format, inner_place, is_apple_double, pair_image, read_file, sniff, stands_there
from medssl.io.options import AS_STORED, ReadOptions

_SIDE_SUFFIXES = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".rst", ".yaml", ".yml", ".toml", ".log", ".xml", ".html", ".pdf", ".bval", ".bvec"}
)
_SIDE_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "citation", "changes", "authors", "thumbs.db", "desktop.ini"})
_SUFFIX = re.compile(r"(\.nii)?\.[A-Za-z0-9]{1,6}$")
_MAX_ID = 100
SERIES = re.compile(r"(series-[0-9a-f]{10})(-\d+)?")  # the ids that `series_id` makes, with a number where `unique` put one
_VERSIONS = frozenset({".git", ".datalad"})  # of the data set; what is checked out of them stands beside them
LEFT_OUT = frozenset({"symlink_skipped", "special_file_skipped"})  # notes about a folder


@dataclass(frozen=True, eq=False)
class Entry:
    """A regular file: its place, its format by content, the format its name claims, and its header where it is DICOM.

    Args:
        place: Path below the scanned root.
        data: Where its voxels lie, if it is a header without them.
    """

    path: Path
    place: PurePosixPath
    kind: str
    claim: str
    header: DicomFile | BadFile | None = None
    data: PurePosixPath | None = None

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
        path: The file, or the folder of a DICOM series; below the path of the archive where it lies in one.
        problems: Codes for which it is refused without reading further.
        warnings: Codes found beside it.
        files: Headers of a DICOM series.
        modality: DICOM modality, where known.
        patient: Digest of the DICOM patient id, where known.
        data: The file with the voxels, where they are apart from their header.
        packed: The archive that holds all of these files.
        volume: Number of the volume in a file of several, None where there is one.
        options: How it is read.
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
    data: Path | None = None
    packed: Packed | None = None
    volume: int | None = None
    options: ReadOptions = AS_STORED

    @property
    def paths(self) -> list[Path]:
        """The files that it is read from."""
        return [file.path for file in self.files] or [path for path in (self.path, self.data) if path is not None]


@dataclass(frozen=True)
class Walk:
    """What stands below a root: regular files, and notes (codes of `LEFT_OUT`) about folders with links or special files in them."""

    entries: tuple[Entry, ...]
    notes: dict[PurePosixPath, set[str]]
    hollow: tuple[PurePosixPath, ...]  # folders called like a scan, without anything in them


def walk(root: Path) -> Walk:
    """Regular files below a folder, or the one file given; links and special files are noted, never opened.

    Raises:
        UsageError: `not_found`, or no right to list the folder.
    """
    if not stands_there(root):
        raise UsageError(f"not_found: {root.name or 'the folder'} does not exist; give a folder with scans")
    if not root.is_dir():
        return Walk((_given_entry(root.resolve(), root.name),), {}, ())
    entries: list[Entry] = []
    notes: dict[PurePosixPath, set[str]] = {}
    hollow: list[PurePosixPath] = []
    pending = [(root.resolve(), PurePosixPath())]
    headers = HeaderReader()
    while pending:
        folder, place = pending.pop()
        before = len(entries) + len(pending)
        for found in _listing(folder, place):
            inner = place / found.name
            if found.is_symlink():
                notes.setdefault(place, set()).add("symlink_skipped")
            elif found.is_dir(follow_symlinks=False):
                if found.name not in _VERSIONS:
                    pending.append((folder / found.name, inner))
            elif found.is_file(follow_symlinks=False):
                entries.append(entry(folder / found.name, inner, headers))
            else:
                notes.setdefault(place, set()).add("special_file_skipped")
        if len(entries) + len(pending) == before and place not in notes and claimed_format(folder.name):
            hollow.append(place)
    return Walk(tuple(sorted(entries, key=lambda each: each.place.parts)), notes, tuple(sorted(hollow)))


def _listing(folder: Path, place: PurePosixPath) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except OSError as error:
        raise UsageError(f"the folder {place} cannot be listed ({error.strerror}); give read rights to it") from error


def _given_entry(path: Path, name: str) -> Entry:
    """The file itself, or the header of the pair whose image it is."""
    header = path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")
    if path.suffix.lower() == ".img" and header.is_file() and not header.is_symlink():
        found = entry(header, PurePosixPath(name).with_name(header.name), HeaderReader())
        if found.data is not None:
            return found
    return entry(path, PurePosixPath(name), HeaderReader())


def entry(path: Path, place: PurePosixPath, headers: HeaderReader) -> Entry:
    """A file with its format by content; a DICOM header is read here, once, by a reader that knows the headers before it."""
    claim = claimed_format(path.name)
    try:
        head, stamp = read_file(path, length=headers.head_bytes)
    except ScanError as error:
        return Entry(path, place, "unreadable", claim, BadFile(error.code))
    if is_apple_double(head, path.name):
        return Entry(path, place, "unknown", claim="")
    kind = sniff(head, path.name)
    if kind != "dicom":
        return Entry(path, place, kind, claim, BadFile("empty_file") if kind == "empty" else None, _data_place(head, place, kind))
    header = headers.read(path, head, stamp)
    if isinstance(header, BadFile) and head[128:132] != b"DICM" and claim != "dicom" and not header.series:
        return Entry(path, place, "unknown", claim)  # looked like a data set by chance
    return Entry(path, place, "dicom", claim, header)


def _data_place(head: bytes, place: PurePosixPath, kind: str) -> PurePosixPath | None:
    if kind == "nifti" and (head[344:347] == b"ni1" or head[4:7] == b"ni2"):
        return place.with_name(pair_image(Path(place.name)).name)
    name = nrrd.data_file(head) if kind == "nrrd" else metaimage.data_file(head) if kind == "metaimage" else ""
    return place.parent / inner_place(name) if name else None


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
