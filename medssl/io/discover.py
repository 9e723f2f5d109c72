"""A folder to scans: every file below it ends in a volume, a warning or a named refusal. Trust rules 1 and 12."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medssl.errors import ScanError, UsageError
from medssl.io.dicom import read_dicom
from medssl.io.dicom_header import BadFile
from medssl.io.dicom_series import SeriesError
from medssl.io.dicom_sources import dicom_sources
from medssl.io.nifti import read_nifti
from medssl.io.raster import read_picture
from medssl.io.record import Reading, ScanRecord
from medssl.io.sources import Entry, Source, Walk, slug, unique, walk
from medssl.io.voxels import RawScan, finish
from medssl.volume import Volume

__all__ = ["Source", "check_folder", "find_sources", "read_folder", "read_source", "read_volume"]

logger = logging.getLogger(__name__)

_UNSUPPORTED = frozenset({"nrrd", "metaimage", "mgh", "zip"})
_PICTURES = frozenset({"png", "jpeg", "tiff"})
_STATUSES = ("accepted", "accepted_with_warning", "rejected")


def find_sources(folder: Path) -> list[Source]:
    """What scans are read from below a folder, or one file; each has an id of its own.

    Raises:
        UsageError: `not_found`.
    """
    return _sources(walk(folder), folder)


def _sources(found: Walk, folder: Path) -> list[Source]:
    root = folder.resolve()
    sources, done = dicom_sources(found, root)
    pairs = {each.place.with_suffix(".img") for each in found.entries if each.kind == "nifti" and each.place.suffix == ".hdr"}
    for each in found.entries:
        if each not in done and each.place not in pairs:
            sources += _file_source(each, found)
    sources += [Source(slug(place), place.as_posix(), "unknown", root / place, ("not_a_file",)) for place in found.hollow]
    sources.sort(key=lambda each: (each.source, each.scan_id))
    return [replace(each, scan_id=name) for each, name in zip(sources, unique([each.scan_id for each in sources]), strict=True)]


def _file_source(each: Entry, found: Walk) -> list[Source]:
    problem = _problem(each)
    if problem and each.is_side_file and not each.claim:
        return []
    place = each.place
    if each.kind == "nifti" and place.suffix == ".hdr" and each.path.with_suffix(".img").is_file():
        place = place.with_suffix(".img")
    kind = "unknown" if each.kind in ("empty", "unreadable") else each.kind
    notes = tuple(sorted(found.notes.get(place.parent, ())))
    return [Source(slug(place), place.as_posix(), kind, each.path, (problem,) if problem else (), notes)]


def _problem(each: Entry) -> str:
    if isinstance(each.header, BadFile):
        return each.header.code
    if each.kind in _UNSUPPORTED:
        return "unsupported_format"
    if each.kind in _PICTURES and each.claim in ("dicom", "nifti"):
        return f"not_{each.claim}"
    if each.kind != "unknown":
        return ""
    if each.claim == "nifti":
        return "corrupt_gzip" if each.place.suffix.lower() == ".gz" else "not_nifti"
    return "not_dicom" if each.claim == "dicom" else "not_a_scan"


def read_folder(folder: Path) -> Iterator[Reading]:
    """One reading per scan below a folder; a scan that cannot be used comes with its reasons and no volume.

    Raises:
        UsageError: `not_found`.
    """
    found = walk(folder)
    sources = _sources(found, folder)
    if not sources:
        notes = {note for notes in found.notes.values() for note in notes}
        yield _rejected(Source("scan", ".", "unknown", folder), ("no_files", *sorted(notes)))
    for source in sources:
        yield read_source(source)


def read_source(source: Source) -> Reading:
    """One scan, or its refusal; never raises for a bad scan."""
    if source.problems:
        return _rejected(source, source.problems)
    try:
        raw = _read_raw(source)
        volume, fingerprint, warnings = finish(raw)
    except SeriesError as error:
        return _rejected(source, (error.code, *error.also))
    except ScanError as error:
        return _rejected(source, (error.code,))
    except MemoryError:
        return _rejected(source, ("too_large",))
    reasons = tuple(dict.fromkeys(source.warnings + warnings))
    record = ScanRecord(
        scan_id=source.scan_id,
        source=source.source,
        format=source.format,
        status="accepted_with_warning" if reasons else "accepted",
        reasons=reasons,
        modality=volume.modality,
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        affine_ras=volume.affine.tolist(),
        voxels_sha256=fingerprint,
        patient=source.patient,
    )
    return Reading(record, volume)


def _read_raw(source: Source) -> RawScan:
    if source.format == "dicom":
        return read_dicom(source.files)
    if source.format == "nifti":
        return read_nifti(source.path)
    return read_picture(source.path, source.format)


def _rejected(source: Source, reasons: tuple[str, ...]) -> Reading:
    logger.info("%s rejected: %s", source.scan_id, " ".join(reasons))
    record = ScanRecord(
        source.scan_id, source.source, source.format, "rejected", reasons, source.modality, None, None, None, None, source.patient
    )
    return Reading(record, None)


def read_volume(path: Path, *, constant_allowed: bool = False) -> Volume:
    """The volume of one file, or of a folder with one DICOM series.

    Args:
        path: File or folder.
        constant_allowed: A mask may be empty or full.

    Raises:
        ScanError: The reason code of the refusal; `not_a_volume` when the folder holds several scans.
    """
    try:
        sources = find_sources(path)
    except UsageError as error:
        raise ScanError("not_found", "the path does not exist") from error
    if not sources:
        raise ScanError("no_files" if path.is_dir() else "not_a_scan", "no scan is there")
    if len(sources) > 1:
        raise ScanError("not_a_volume", f"the folder holds {len(sources)} scans, give one")
    source = sources[0]
    if source.problems:
        raise ScanError(source.problems[0], "the scan was refused; run medssl check")
    try:
        return finish(_read_raw(source), constant_allowed=constant_allowed)[0]
    except MemoryError as error:
        raise ScanError("too_large", "the scan does not fit into memory") from error


def check_folder(folder: Path) -> dict[str, object]:
    """The intake report of a folder: a record for each scan, and how many have which status.

    Raises:
        UsageError: `not_found`.
    """
    return intake_report([reading.record for reading in read_folder(folder)])


def intake_report(records: Sequence[ScanRecord]) -> dict[str, object]:
    """Records and their counts as the `check` report holds them."""
    counts = Counter(record.status for record in records)
    return {"scans": [record.as_dict() for record in records], "counts": {status: counts[status] for status in _STATUSES if counts[status]}}
