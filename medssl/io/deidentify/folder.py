"""Copies of a folder of DICOM images without the patients: PS3.15 Basic Application Level Confidentiality Profile.

Each file ends as a copy or as a row with the reason why not. Names of copies, tables and messages hold pseudonyms only. What is done to
a tag: `medssl.io.deidentify.table`; to an object: `medssl.io.deidentify.dataset`; which objects are refused: `medssl.io.deidentify.risk`.
"""

import io
import json
import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID
from rich.progress import track

from medssl.errors import ConflictError, ScanError, UsageError
from medssl.files import remove_leftovers, write_text
from medssl.io.deidentify.additions import add_file, merge_table
from medssl.io.deidentify.dataset import (
    INSTANCE_NUMBER,
    INSTANCE_UID,
    SERIES_UID,
    STUDY_UID,
    Cleaner,
    Step,
    identify,
    new_file_meta,
    silence,
)
from medssl.io.deidentify.pseudonyms import Pseudonym, Pseudonyms, load_key
from medssl.io.deidentify.risk import has_text, is_unsafe, refusal, shows_face
from medssl.io.deidentify.table import keyword
from medssl.io.deidentify.values import text_of
from medssl.io.dicom.elements import PixelElement, parse
from medssl.io.dicom.header import BadFile, DicomFile
from medssl.io.files import read_file, stands_there
from medssl.io.sources import Entry, Walk, walk

RECORD, FILES_TABLE, TAGS_TABLE = "deidentified.json", "deidentified.csv", "deidentified_tags.csv"
_MAX_FILE_BYTES = 2 << 30
_OTHER_KEY = "the out folder holds copies made with another key; give that key, or another out folder"
_ACTIONS = {"X": "removed", "Z": "emptied", "D": "dummy", "K": "kept", "C": "date moved, time of day kept", "U": "new UID"}
# what pydicom raises on a damaged element, none of which names its own class
_PYDICOM_ERRORS = (
    InvalidDicomError, ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError, TypeError,
    ValueError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What became of one file.

    Args:
        source: Digest of its path below the folder, which only the owner of the key can make again.
        status: `copied`, `refused`, or `skipped` for what is no DICOM object or stands there twice.
        path: The copy, below the out folder.
        reason: Code, empty for a copy.
        notes: Codes of what remains in a copy: `burned_in_annotation`, `face`, `pixeldata_length`.
    """

    source: str
    status: str
    path: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Copy:
    path: str
    content: bytes
    notes: tuple[str, ...]
    steps: frozenset[Step]


@dataclass
class _Job:
    out: Path
    pseudonyms: Pseudonyms
    force_burned_in: bool
    tags: Counter[Step] = field(default_factory=Counter)
    copied: set[str] = field(default_factory=set)


def deidentify_folder(
    folder: Path, out: Path, key: Path | None = None, *, new_key: bool = False, force_burned_in: bool = False
) -> list[Row]:
    """Copy every DICOM image below a folder without its patient; a file that cannot be copied stops nothing.

    Args:
        folder: What to read; nothing in it is changed.
        out: Where the copies and the two tables go; copies that are there already are kept.
        key: File with the key of the pseudonyms; `out` with `.key` behind its name where none is given, made when it is not there.
        new_key: Make the key file where there is none.
        force_burned_in: Copy images too whose pixels may hold text.

    Raises:
        UsageError: A folder or the key cannot be used, or there is no DICOM file.
        ConflictError: `out` holds other files, or copies made with another key.
        NoSpaceError: The disk is full; what was copied before is whole.
    """
    own_key = key or out.resolve().with_name(f"{out.resolve().name}.key")
    _refuse_places(folder, out, own_key)
    found = _walk(folder)
    _refuse_taken(out, own_key)
    job = _Job(out, Pseudonyms(load_key(own_key, create=new_key or key is None)), force_burned_in)
    _claim(out, job.pseudonyms)
    rows = [_row(job, entry) for entry in track(found.entries, "de-identifying")] + _unopened(job, found)
    _write_tables(job, job.pseudonyms.digest("folder", folder.resolve().as_posix()), rows)
    return rows


def summary(rows: Sequence[Row]) -> str:
    """How many files were copied, refused and skipped, why, and what remains in the copies."""
    parts = []
    for status, count in sorted(Counter(row.status for row in rows).items()):
        reasons = Counter(row.reason for row in rows if row.status == status and row.reason)
        notes = Counter(note for row in rows if row.status == status for note in row.notes)
        told = [f"{number} {code}" for code, number in (reasons + notes).most_common()]
        parts.append(f"{count} {status}" + (f" ({', '.join(told)})" if told else ""))
    return ", ".join(parts)


def _refuse_places(folder: Path, out: Path, key: Path) -> None:
    if not stands_there(folder, Path.is_dir):
        raise UsageError("not_found: the folder does not exist; give a folder with DICOM files")
    source, target = folder.resolve(), out.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UsageError("one of the two folders lies inside the other; give an out folder beside the one that is read")
    if key.resolve().is_relative_to(target):
        raise UsageError("the key lies in the out folder and would go where the copies go; keep it elsewhere")


def _walk(folder: Path) -> Walk:
    try:
        found = walk(folder)
    except UsageError as error:
        raise UsageError("a folder below the one given cannot be listed; give read rights to it") from error
    if not any(each.kind == "dicom" for each in found.entries):
        raise UsageError("no_files: the folder holds no DICOM file; other formats are not de-identified")
    return found


def _refuse_taken(out: Path, key: Path) -> None:
    """Refuse a folder of other files, and one of copies whose key is not there, before a key is made for it."""
    remove_leftovers(out)
    if (out / RECORD).is_file():
        if not os.path.lexists(key):
            raise ConflictError(_OTHER_KEY)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConflictError("the out folder holds other files; give an empty one")


def _claim(out: Path, pseudonyms: Pseudonyms) -> None:
    """Take an empty folder, or one with copies made with the same key."""
    record = out / RECORD
    if record.is_file():
        if f'"{pseudonyms.fingerprint}"' not in record.read_text(encoding="utf-8", errors="replace"):
            raise ConflictError(_OTHER_KEY)
        return
    facts = {"profile": "DICOM PS3.15 2026c, codes 113100 and 113107", "key_fingerprint": pseudonyms.fingerprint}
    write_text(record, json.dumps(facts, indent=1))


def _row(job: _Job, entry: Entry) -> Row:
    source = job.pseudonyms.digest("file", entry.place.as_posix())
    header = entry.header
    if header is None or entry.kind != "dicom":
        claimed = entry.claim == "dicom" or isinstance(header, BadFile)
        reason = header.code if isinstance(header, BadFile) else "not_dicom"
        return Row(source, "refused" if claimed else "skipped", reason=reason)
    if isinstance(header, BadFile) and header.code == "dicomdir":
        return Row(source, "skipped", reason="dicomdir")
    if isinstance(header, BadFile) and is_unsafe(header):
        return Row(source, "refused", reason=header.code)
    try:
        return _copy(job, entry, header, source)
    except ScanError as error:
        return Row(source, "refused", reason=error.code)
    except MemoryError:
        return Row(source, "refused", reason="too_large")


def _copy(job: _Job, entry: Entry, header: DicomFile | BadFile, source: str) -> Row:
    with silence():
        try:
            copy = _made(job, entry.path, header)
        except _PYDICOM_ERRORS as error:
            raise ScanError("bad_header", "an element cannot be read or written") from error
    add_file(job.out / copy.path, copy.content)
    if copy.path in job.copied:
        return Row(source, "skipped", copy.path, "duplicate_dropped")
    job.tags.update(copy.steps)
    job.copied.add(copy.path)
    return Row(source, "copied", copy.path, notes=copy.notes)


def _made(job: _Job, path: Path, header: DicomFile | BadFile) -> _Copy:
    dataset, syntax = _read(path, header)
    reason = refusal(header, dataset, force_burned_in=job.force_burned_in)
    if reason:
        raise ScanError(reason, "the object is not copied")
    notes = _notes(header, dataset)
    patient = identify(dataset, job.pseudonyms)
    place = _place(job, dataset, patient)
    steps = Cleaner(job.pseudonyms, patient)(dataset)
    return _Copy(place, _written(dataset, syntax), notes, steps)


def _read(path: Path, header: DicomFile | BadFile) -> tuple[FileDataset, str]:
    """The object as pydicom reads it, after the bounded reader has walked all of it, and its transfer syntax."""
    stamp = header.stamp if isinstance(header, DicomFile) else read_file(path, length=0)[1]
    if stamp.size > _MAX_FILE_BYTES:
        raise ScanError("too_large", f"the file has more than {_MAX_FILE_BYTES >> 30} GiB")
    data, _ = read_file(path, stamp=stamp)
    parsed = parse(data, complete=True, wanted=frozenset())
    _refuse_coding(UID(parsed.syntax), parsed.pixels)
    return dcmread(io.BytesIO(data), force=True), parsed.syntax


def _refuse_coding(syntax: UID, pixels: PixelElement | None) -> None:
    if syntax.type != "Transfer Syntax":
        raise ScanError("unsupported_transfer_syntax", "the transfer syntax is unknown, so what is written back may be wrong")
    if pixels is not None and (pixels.length is None) != syntax.is_encapsulated:
        raise ScanError("bad_transfer_syntax", "the pixel data are not stored as the transfer syntax says")


def _notes(header: DicomFile | BadFile, dataset: FileDataset) -> tuple[str, ...]:
    longer = isinstance(header, DicomFile) and "pixeldata_length" in header.warnings
    found = {"burned_in_annotation": has_text(dataset), "face": shows_face(dataset), "pixeldata_length": longer}
    return tuple(code for code, is_there in found.items() if is_there)


def _place(job: _Job, dataset: FileDataset, patient: Pseudonym) -> str:
    study, series, instance = (text_of(dataset, tag) for tag in (STUDY_UID, SERIES_UID, INSTANCE_UID))
    if not (study and series and instance):
        raise ScanError("missing_tag", "a study, series or instance UID is absent, and references to the object would be lost")
    short = [job.pseudonyms.digest("uid", uid, 8) for uid in (study, series, instance)]
    number = text_of(dataset, INSTANCE_NUMBER)
    order = int(number) if number.isascii() and number.isdigit() and len(number) <= 5 else 0
    return PurePosixPath(patient.name, short[0], short[1], f"{order:05d}-{short[2]}.dcm").as_posix()


def _written(dataset: FileDataset, syntax: str) -> bytes:
    dataset.preamble = bytes(128)
    dataset.file_meta = new_file_meta(dataset, syntax)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _unopened(job: _Job, found: Walk) -> list[Row]:
    """A row for the links, and one for the pipes and devices, of each folder that has any."""
    places = sorted((place.as_posix(), code) for place, codes in found.notes.items() for code in codes)
    return [Row(job.pseudonyms.digest("file", place), "skipped", reason=code) for place, code in places]


def _write_tables(job: _Job, folder: str, rows: Sequence[Row]) -> None:
    files = [[folder, row.source, row.status, row.path, row.reason, " ".join(row.notes)] for row in rows]
    merge_table(job.out / FILES_TABLE, ["folder", "source", "status", "path", "reason", "notes"], files)
    tags = [
        [folder, f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword(tag), action, _ACTIONS[action], str(count)]
        for (tag, action), count in sorted(job.tags.items())
    ]
    merge_table(job.out / TAGS_TABLE, ["folder", "tag", "keyword", "action", "meaning", "files"], tags)
