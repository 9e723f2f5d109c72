"""A folder to scans: every file below it ends in a volume, a warning or a named refusal. Trust rules 1 and 12."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from medssl.errors import ScanError, UsageError
from medssl.io import metaimage, mgh, nifti, nrrd
from medssl.io.archive import Packed, unpacked
from medssl.io.dicom.header import BadFile
from medssl.io.dicom.read import read_dicom
from medssl.io.dicom.series import SeriesError
from medssl.io.dicom_sources import dicom_sources
from medssl.io.files import FileStamp, stands_there
from medssl.io.options import AS_STORED, ReadOptions
from medssl.io.raster import read_picture
from medssl.io.record import Reading, ScanRecord, intake_report
from medssl.io.sources import LEFT_OUT, SERIES, Entry, Source, Walk, slug, unique, walk
from medssl.io.tilt import straightened
from medssl.io.voxels import RawScan, finish
from medssl.volume import Volume

__all__ = [
    "Scan",
    "Source",
    "check_folder",
    "find_sources",
    "read_folder",
    "read_record",
    "read_scan",
    "read_source",
    "read_volume",
    "refuse",
]

_READERS = {"nifti": nifti.read_nifti, "nrrd": nrrd.read_nrrd, "metaimage": metaimage.read_metaimage, "mgh": mgh.read_mgh}
_COUNTERS = {"nifti": nifti.count_volumes, "nrrd": nrrd.count_volumes, "metaimage": metaimage.count_volumes, "mgh": mgh.count_volumes}
_NO_KIND = frozenset({"unknown", "empty", "unreadable"})
_PICTURES = frozenset({"png", "jpeg", "tiff"})
_NO_FORMAT = {
    ("nifti", ""): "not_nifti",
    ("nifti", ".gz"): "corrupt_gzip",
    ("mgh", ".mgz"): "corrupt_gzip",
    ("dicom", ""): "not_dicom",
    ("zip", ""): "corrupt_archive",
}


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan that was read.

    Args:
        volume: In the closest RAS order.
        source: What it was read from.
        warnings: Codes of what is odd about it.
        slice_mm: Distance of its slices as they were stored, in mm.
    """

    volume: Volume
    source: Source
    warnings: tuple[str, ...]
    slice_mm: float


def find_sources(folder: Path, options: ReadOptions = AS_STORED) -> list[Source]:
    """What scans are read from below a folder, or one file; each has an id of its own.

    Args:
        folder: A folder, a file, or a place inside a zip archive (`a.zip/inner`), of one volume of a file (`a.nii.gz/t003`) or of one
            DICOM series among the scans of a folder (`a/series-0123456789`).
        options: How they are read.

    Raises:
        UsageError: `not_found`.
        NoSpaceError: The folder for temporary files is full.
    """
    if SERIES.fullmatch(folder.name) and not stands_there(folder):
        return _series(folder, options)
    archive = next((each for each in folder.parents if stands_there(each, Path.is_file)), None)
    if archive is None:
        return [replace(each, options=options) for each in _sources(walk(folder), folder, options)]
    inside = [each for each in find_sources(archive, options) if _leads_to(each.source, folder.relative_to(archive.parent))]
    if not inside:
        raise UsageError(f"not_found: {folder.name} is not in {archive.name}")
    return inside


def _series(place: Path, options: ReadOptions) -> list[Source]:
    """The one series of that id in a folder or archive."""
    there = next(each for each in place.parents if stands_there(each))
    found = [each for each in _sources_in(place.parent, options, there.stat().st_mtime_ns) if each.scan_id == place.name]
    if not found:
        raise UsageError(f"not_found: {place.parent.name} holds no {place.name}")
    return found


@lru_cache(maxsize=1)
def _sources_in(folder: Path, options: ReadOptions, modified_ns: int) -> list[Source]:  # noqa: ARG001 - `modified_ns` only keys the cache
    """The sources of a folder, found once for all its series; a file that changes afterwards is noticed when it is read."""
    return [each for each in find_sources(folder, options) if each.format == "dicom"]


def _leads_to(source: str, place: Path) -> bool:
    return PurePosixPath(source).is_relative_to(PurePosixPath(place))


def _sources(found: Walk, folder: Path, options: ReadOptions, *, packed: bool = False) -> list[Source]:
    root = folder.resolve()
    data = {each.data for each in found.entries if each.data is not None}
    found = replace(found, entries=tuple(each for each in found.entries if each.place not in data or each.kind not in _NO_KIND))
    sources, done = dicom_sources(found, root)
    for each in found.entries:
        if each in done:
            continue
        sources += _archive_sources(each, options) if each.kind == "zip" and not packed else _file_sources(each, found, options)
    sources += [Source(slug(place), place.as_posix(), "unknown", root / place, ("not_a_file",)) for place in found.hollow]
    sources += _left_out(found, sources, root)
    sources.sort(key=lambda each: (each.source, each.scan_id))
    return [replace(each, scan_id=name) for each, name in zip(sources, unique([each.scan_id for each in sources]), strict=True)]


def _left_out(found: Walk, sources: Sequence[Source], root: Path) -> list[Source]:
    """A refusal for each folder with links or special files of which no scan of the folder tells."""
    told = {(path.parent, code) for each in sources for path in each.paths for code in each.warnings}
    return [
        Source(slug(place), place.as_posix(), "folder", root / place, tuple(sorted(codes)))
        for place, codes in found.notes.items()
        if any((root / place, code) not in told for code in codes)
    ]


def _file_sources(each: Entry, found: Walk, options: ReadOptions) -> list[Source]:
    problem = _problem(each)
    if problem and each.is_side_file and not each.claim:
        return []
    place = each.place
    data = None if each.data is None else each.path.parent / each.data.relative_to(place.parent)
    if each.kind == "nifti" and data is not None and data.is_file():
        place = place.with_name(data.name)
    kind = "unknown" if each.kind in _NO_KIND else each.kind
    notes = tuple(sorted(found.notes.get(place.parent, ())))
    whole = Source(slug(place), place.as_posix(), kind, each.path, (problem,) if problem else (), notes, data=data)
    return [whole] if problem or options.four_d == "refuse" or kind not in _COUNTERS else _volumes(whole, place)


def _volumes(whole: Source, place: PurePosixPath) -> list[Source]:
    """A source for each volume, where a file holds several."""
    try:
        count = _COUNTERS[whole.format](whole.path)
    except ScanError:
        return [whole]  # reading it names what is wrong
    if count == 1:
        return [whole]
    places = [place / f"t{number:03d}" for number in range(count)]
    return [replace(whole, scan_id=_scan_id(part, number), source=part.as_posix(), volume=number) for number, part in enumerate(places)]


def _scan_id(place: PurePosixPath, volume: int | None) -> str:
    return slug(place) if volume is None else f"{slug(place.parent)}-{place.name}"


def _problem(each: Entry) -> str:
    if isinstance(each.header, BadFile):
        return each.header.code
    if each.kind == "zip":
        return "nested_archive"
    if each.kind in _PICTURES and each.claim in ("dicom", "nifti"):
        return f"not_{each.claim}"
    if each.kind != "unknown":
        return ""
    return _NO_FORMAT.get((each.claim, each.place.suffix.lower()), _NO_FORMAT.get((each.claim, ""), "not_a_scan"))


def _archive_sources(each: Entry, options: ReadOptions) -> list[Source]:
    """The scans inside a zip archive, or one refusal of it."""
    try:
        with unpacked(each.path) as (folder, stamp):
            inner = _sources(walk(folder), folder, options, packed=True)
            if not inner:
                raise ScanError("no_files", "the archive holds no scan")
            return [_packed(source, each, folder, stamp) for source in inner]
    except ScanError as error:
        return [Source(slug(each.place), each.place.as_posix(), "zip", each.path, (error.code,))]


def _packed(source: Source, archive: Entry, folder: Path, stamp: FileStamp) -> Source:
    """A source found in the unpacked folder, which is about to go, with its paths below the archive instead."""
    place = archive.place / source.source
    return replace(
        _moved(source, folder, archive.path),
        scan_id=source.scan_id if source.files else _scan_id(place, source.volume),
        source=place.as_posix(),
        packed=Packed(archive.path, stamp, frozenset(PurePosixPath(path.relative_to(folder)) for path in source.paths)),
    )


def _moved(source: Source, root: Path, to: Path) -> Source:
    files = tuple(replace(file, path=to / file.path.relative_to(root)) for file in source.files)
    return replace(source, path=to / source.path.relative_to(root), files=files)


def read_folder(folder: Path, options: ReadOptions = AS_STORED, *, fingerprint: bool = True) -> Iterator[Reading]:
    """One reading per scan below a folder; a scan that cannot be used comes with its reasons and no volume.

    Args:
        folder: What `find_sources` takes.
        options: How scans are read.
        fingerprint: Fill `voxels_sha256` of the records; for a large scan that takes longer than reading and all checks.

    Raises:
        UsageError: `not_found`.
    """
    sources = find_sources(folder, options)
    if not sources:
        yield Reading(refuse(Source("scan", ".", "unknown", folder), ("no_files",)), None)
    for source in sources:
        yield read_source(source, fingerprint=fingerprint)


def read_source(source: Source, *, fingerprint: bool = True) -> Reading:
    """One scan, or its refusal; never raises for a bad scan. Without `fingerprint` the record has no `voxels_sha256`."""
    if source.problems:
        return Reading(refuse(source, source.problems), None)
    try:
        raw = _read_raw(source)
        volume, voxels_sha256, warnings = finish(raw, fingerprint=fingerprint)
    except SeriesError as error:
        return Reading(refuse(source, (error.code, *error.also)), None)
    except ScanError as error:
        return Reading(refuse(source, (error.code,)), None)
    except MemoryError:
        return Reading(refuse(source, ("too_large",)), None)
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
        voxels_sha256=voxels_sha256 or None,
        patient=source.patient,
    )
    return Reading(record, volume)


def _read_raw(source: Source, *, mask: bool = False) -> RawScan:
    raw = _read_stored(source)
    if source.options.units == "mm" and source.format == "nifti":
        raw = replace(raw, nominal=False)  # a NIfTI without geometry is refused, so that its unit alone was unknown
    return straightened(raw, mask=mask) if source.options.tilt == "resample" else raw


def _read_stored(source: Source) -> RawScan:
    if source.packed is not None:
        packed = source.packed
        with unpacked(packed.archive, members=packed.members, stamp=packed.stamp) as (folder, _):
            return _read_stored(replace(_moved(source, packed.archive, folder), packed=None))
    if source.format == "dicom":
        return read_dicom(source.files, pet=source.options.pet)
    if source.format in _READERS:
        return _READERS[source.format](source.path, source.volume)
    return read_picture(source.path, source.format)


def read_record(source: Source) -> ScanRecord:
    """What is to be said of one scan, its voxels left behind."""
    return read_source(source).record


def refuse(source: Source, reasons: tuple[str, ...]) -> ScanRecord:
    """The record of a scan that cannot be used; what was left out beside it is told too."""
    reasons += tuple(code for code in source.warnings if code in LEFT_OUT - set(reasons))
    return ScanRecord(
        source.scan_id, source.source, source.format, "rejected", reasons, source.modality, None, None, None, None, source.patient
    )


def read_volume(path: Path, options: ReadOptions = AS_STORED, *, constant_allowed: bool = False) -> Volume:
    """The volume of one scan; takes and raises what `read_scan` does."""
    return read_scan(path, options, constant_allowed=constant_allowed).volume


def read_scan(path: Path, options: ReadOptions = AS_STORED, *, constant_allowed: bool = False) -> Scan:
    """The scan of one file, or of a folder with one DICOM series.

    Args:
        path: What `find_sources` takes.
        options: How it is read.
        constant_allowed: It is a mask, which may be empty or full.

    Raises:
        ScanError: The reason code of the refusal; `not_a_volume` when the folder holds several scans.
    """
    try:
        sources = find_sources(path, options)
    except UsageError as error:
        raise ScanError("not_found", "the path does not exist") from error
    sources = [each for each in sources if each.format != "folder"]
    if not sources:
        raise ScanError("no_files" if path.is_dir() else "not_a_scan", "no scan is there")
    if len(sources) > 1:
        raise ScanError("not_a_volume", f"the folder holds {len(sources)} scans, give one")
    source = sources[0]
    if source.problems:
        raise ScanError(source.problems[0], "the scan was refused; run medssl check")
    try:
        raw = _read_raw(source, mask=constant_allowed)
        volume, _, found = finish(raw, constant_allowed=constant_allowed, fingerprint=False)
    except MemoryError as error:
        raise ScanError("too_large", "the scan does not fit into memory") from error
    return Scan(volume, source, tuple(dict.fromkeys(source.warnings + found)), float(np.linalg.norm(raw.affine[:3, 2])))


def check_folder(folder: Path) -> dict[str, object]:
    """The intake report of a folder: a record for each scan, and how many have which status.

    Raises:
        UsageError: `not_found`.
    """
    return intake_report([reading.record for reading in read_folder(folder)])
