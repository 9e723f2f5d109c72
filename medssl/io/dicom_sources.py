"""DICOM files found below a folder, grouped into what one scan is read from. Trust rule 3."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from medssl.io.dicom.header import BadFile, DicomFile
from medssl.io.dicom.read import is_picture
from medssl.io.dicom.series import whole_groups
from medssl.io.sources import Entry, Source, Walk, series_id, slug

_NO_SCAN = frozenset({"not_a_scan"})
Key = tuple[str, str]  # study and series UID; the folder stands for an absent series UID


@dataclass(eq=False)
class _Series:
    """Files of one series UID, readable and not, and what was found beside them; the files are all there before one asks about them."""

    good: list[Entry] = field(default_factory=list)
    bad: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)

    @cached_property
    def headers(self) -> list[DicomFile]:
        return [each.header for each in self.good if isinstance(each.header, DicomFile)]

    @property
    def is_stack(self) -> bool:
        return len(self.good) + len(self.bad) > 1 and bool(self.good) and not any(map(_stands_alone, self.headers))

    @cached_property
    def folders(self) -> set[PurePosixPath]:
        return {each.place.parent for each in self.good}


def _stands_alone(file: DicomFile) -> bool:
    return file.multiframe or is_picture(file)


def dicom_sources(found: Walk, root: Path) -> tuple[list[Source], set[Entry]]:
    """Sources of all DICOM series, and every entry that is accounted for by them."""
    candidates = [each for each in found.entries if isinstance(each.header, DicomFile | BadFile)]
    series = _by_series([each for each in candidates if each.kind == "dicom"])
    done = {each for group in series.values() for each in group.good + group.bad}
    stacks = [group for group in series.values() if group.is_stack]
    directories = [each for each in candidates if isinstance(each.header, BadFile) and each.header.code == "dicomdir"]
    _note_directories(directories, series)
    done.update(directories)
    for each in found.entries:
        if each not in done and _account(each, stacks):
            done.add(each)
    _note_neighbours(stacks)
    sources = [source for key, group in series.items() for source in _sources(key, group, found, root)]
    sources += [_alone(each) for each in candidates if each.kind == "dicom" and each not in done]
    done.update(each for each in candidates if each.kind == "dicom")
    return sources, done


def _by_series(entries: Sequence[Entry]) -> dict[Key, _Series]:
    series: dict[Key, _Series] = {}
    for each in entries:
        header = each.header
        if isinstance(header, DicomFile):
            key = (header.study, header.series or f"folder {each.place.parent}")
            series.setdefault(key, _Series()).good.append(each)
    for each in entries:
        header = each.header
        if isinstance(header, BadFile) and header.code not in _NO_SCAN and header.series:
            group = series.setdefault((header.study, header.series), _Series())
            group.bad.append(each)
            group.problems.append(header.code)
    return series


def _account(each: Entry, stacks: Sequence[_Series]) -> bool:
    """Note a file that is no readable slice at the stacks of its folder; False where it is to have its own record."""
    beside = [group for group in stacks if each.place.parent in group.folders]
    if not beside or each.kind in ("nifti", "nrrd", "metaimage", "mgh", "zip"):
        return False
    header = each.header
    suffixes = {_suffix(other.place) for group in beside for other in group.good}
    no_scan = isinstance(header, BadFile) and header.code in _NO_SCAN
    if not no_scan and (header is not None or each.claim == "dicom") and _suffix(each.place) in suffixes:
        if len(beside) == 1:  # with several series nobody can say which one lacks a slice
            code = header.code if isinstance(header, BadFile) else "not_dicom"
            beside[0].problems += ["unreadable_slice", *([code] if code != "unreadable_file" else [])]
        return len(beside) == 1
    for group in beside:
        group.warnings.add("skipped_non_image" if no_scan else "skipped_non_dicom")
    return True


def _suffix(place: PurePosixPath) -> str:
    suffix = place.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _note_directories(directories: Sequence[Entry], series: dict[Key, _Series]) -> None:
    for each in directories:
        if isinstance(each.header, BadFile) and each.header.escaping_names:
            for group in series.values():
                if any(other.place.is_relative_to(each.place.parent) for other in group.good):
                    group.warnings.add("dicomdir_ignored")


def _note_neighbours(stacks: Sequence[_Series]) -> None:
    for folder in {folder for group in stacks for folder in group.folders}:
        beside = [group for group in stacks if folder in group.folders]
        if len(beside) > 1:
            patients = {header.patient for group in beside for header in group.headers}
            for group in beside:
                group.warnings.add("several_patients" if len(patients) > 1 else "several_series")


def _sources(key: Key, group: _Series, found: Walk, root: Path) -> list[Source]:
    headers, places = group.headers, {each.header: each.place for each in group.good}
    notes = {note for folder in group.folders for note in found.notes.get(folder, ())}
    warnings = tuple(sorted(group.warnings | notes))
    alone = [file for file in headers if _stands_alone(file)]
    rest = [file for file in headers if not _stands_alone(file)]
    parts = [[file] for file in alone] + (whole_groups(rest) if rest else [])
    sources = []
    for part in parts:
        extra = () if len(parts) == 1 else (part[0].sop_uid,) if _stands_alone(part[0]) else part[0].group
        place = _place([places[file] for file in part] + ([] if _stands_alone(part[0]) else [each.place for each in group.bad]))
        sources.append(
            Source(
                scan_id=series_id(key[1], *extra),
                source=place.as_posix(),
                format="dicom",
                path=root / place if root.is_dir() else root,
                problems=() if _stands_alone(part[0]) else tuple(dict.fromkeys(group.problems)),
                warnings=warnings + _name_warnings(part),
                files=tuple(part),
                modality=part[0].modality,
                patient=part[0].patient,
            )
        )
    return sources + ([] if rest else _refused(key, group, root))


def _refused(key: Key, group: _Series, root: Path) -> list[Source]:
    """One record for a series without any readable slice; a single file keeps its own name."""
    if group.good or len(group.bad) < 2:
        return [_alone(each) for each in group.bad]
    place, first = _place([each.place for each in group.bad]), _alone(group.bad[0])
    problems = tuple(dict.fromkeys(group.problems))
    return [replace(first, scan_id=series_id(key[1]), source=place.as_posix(), path=root / place, problems=problems)]


def _place(places: Sequence[PurePosixPath]) -> PurePosixPath:
    if len(places) == 1:
        return places[0]
    return PurePosixPath(os.path.commonpath([each.parent.as_posix() for each in places]) or ".")


def _name_warnings(files: Sequence[DicomFile]) -> tuple[str, ...]:
    wrong = any(file.path.name.lower().endswith(_OTHER_FORMATS) for file in files)
    return ("wrong_extension",) if wrong else ()


_OTHER_FORMATS = (".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nrrd", ".mha", ".mhd", ".mgz", ".zip")


def _alone(each: Entry) -> Source:
    header = each.header
    code, modality, patient = (header.code, header.modality, header.patient) if isinstance(header, BadFile) else ("not_dicom", "", "")
    return Source(slug(each.place), each.place.as_posix(), "dicom", each.path, (code,), modality=modality, patient=patient)
