"""The plain layout: every image file and every DICOM series of a folder is a scan; masks and patients are known by names."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePosixPath

from medssl.data.layout_files import can_be_named, files_below, is_image, stem_of
from medssl.data.manifest import ManifestRow
from medssl.io.discover import Source, find_sources
from medssl.io.sources import SERIES, unique

logger = logging.getLogger(__name__)

_BRAIN = r"brain[ _-]?mask|desc-brain|brainextract|skullstrip"
_FACE = r"(?:de|(?<![a-z]))fac(?:e|ing)[ _-]?mask|(?<![a-z])anon[a-z]*[ _-]?mask"  # of what was removed, or of what was kept: tools differ
NO_LESION = re.compile(f"{_BRAIN}|{_FACE}", re.IGNORECASE)
_MASK = re.compile(r"lesion|mask(?!ed)|tumou?r|seg|label", re.IGNORECASE)
_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
_MOST_SEQUENCES = 8  # a folder with more images holds patients, not sequences of one patient


def plain(folder: Path) -> list[ManifestRow]:
    """Every image file and every DICOM series is a scan; a mask is known by its name or the name of its folder.

    A zip archive is a folder of that name; one that cannot be read is a scan that will be refused.

    The patient is the one that DICOM headers tell (as a digest), else the first folder on the way to the scan, unless that folder holds
    many images: then each image is its own patient.
    """
    sources = [each for each in find_sources(folder) if can_be_named(each.source)]
    series = _series(sources)
    by_folder: defaultdict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in sorted({*(path for path in files_below(folder) if is_image(path)), *_other_places(sources)}):
        by_folder[path.parent].append(path)
    dicom = {PurePosixPath(each.source) for each in series.values()}
    masks = {path for group in by_folder.values() for path in _masks(group, by_folder)}
    images = [path for group in by_folder.values() for path in group if path not in masks | dicom and not NO_LESION.search(path.name)]
    lesions = _pair(images, sorted(masks))
    drawn = {place: _mask_of_series(PurePosixPath(each.source), masks) for place, each in series.items()}
    lost = masks - {PurePosixPath(lesion) for lesion in (*lesions.values(), *drawn.values())}
    if lost:
        logger.warning("%d masks belong to no image that stands beside them", len(lost))
    shared = _common([path.parent for path in images] + list(dicom))
    pools = _pools(images, lesions)
    rows = [_plain_row(path, path.parent, shared, lesions.get(path, ""), is_pool=path.parent in pools) for path in images]
    rows = [
        replace(row, patient="") if len(by_folder[path.parent]) > _MOST_SEQUENCES else row for row, path in zip(rows, images, strict=True)
    ]
    people = {row.patient for row in rows}
    rows += [_series_row(each, place, shared, drawn[place], people) for place, each in series.items()]
    guessed = sum(not row.patient for row in rows)
    if guessed:
        logger.warning("%d scans count as patients of their own, as no folder tells whose they are; a table can (--labels)", guessed)
    return rows


def _other_places(sources: Sequence[Source]) -> Iterator[PurePosixPath]:
    """Where scans of other formats than DICOM lie, whatever they are called, and archives that cannot be read."""
    for each in sources:
        place = PurePosixPath(each.source)
        is_meant = not each.problems or (each.packed is not None and is_image(place))
        is_hidden = any(part.startswith(".") for part in place.parts)
        if each.format == "zip" or (each.format != "dicom" and is_meant and not is_hidden):
            yield place


def _series(sources: Sequence[Source]) -> dict[PurePosixPath, Source]:
    """DICOM scans by where they are read from: their file or folder or, where that holds other scans too, their id below it."""
    held = Counter(folder for each in sources if each.format != "folder" for folder in _folders(each))
    places: dict[PurePosixPath, Source] = {}
    for source, found in groupby((each for each in sources if each.format == "dicom"), key=lambda each: each.source):
        here = list(found)
        names = unique([SERIES.sub(r"\1", each.scan_id) for each in here])  # numbers told copies in other folders apart
        places |= {PurePosixPath(source) / (name if held[each.path] > 1 else ""): each for name, each in zip(names, here, strict=True)}
    return places


def _folders(source: Source) -> set[Path]:
    """All folders, up to the root, that the files of a scan lie in."""
    return {folder for path in source.paths for folder in path.parents}


def _series_row(each: Source, place: PurePosixPath, shared: PurePosixPath, lesion: str, people: set[str]) -> ManifestRow:
    """A DICOM series; where images of other formats share its folder, the folder stays the patient of them all."""
    row = _plain_row(place, PurePosixPath(each.source), shared, lesion, is_pool=False)
    patient = row.patient if row.patient in people else each.patient or row.patient
    return replace(row, patient=patient, modality=each.modality)


def _plain_row(image: PurePosixPath, place: PurePosixPath, shared: PurePosixPath, lesion: str, *, is_pool: bool) -> ManifestRow:
    """A scan; its patient is the first folder on the way to it, unless that is a pool of images with one of masks beside it."""
    parts = list(place.relative_to(shared).parts)
    split = _SPLITS.get(parts[0].casefold(), "") if parts else ""
    parts = parts[1:] if split else parts
    patient = "" if not parts or (is_pool and len(parts) == 1) else parts[0].removesuffix(".zip")
    return ManifestRow("", patient, image.as_posix(), split=split, lesion=lesion)


def _pools(images: Sequence[PurePosixPath], lesions: Mapping[PurePosixPath, str]) -> set[PurePosixPath]:
    """Folders of all images, with one of masks beside them; where there are several folders of images, they may be patients."""
    beside = Counter(folder.parent for folder in {image.parent for image in images})
    masks = {image.parent: PurePosixPath(lesion).parent for image, lesion in lesions.items()}
    return {folder for folder, other in masks.items() if folder != other and folder.parent == other.parent and beside[folder.parent] == 1}


def _masks(group: Sequence[PurePosixPath], by_folder: Mapping[PurePosixPath, object]) -> list[PurePosixPath]:
    """The masks among the files of one folder; where all look like masks and no image folder stands beside it, none is."""
    parent = group[0].parent
    if _MASK.search(parent.name) and any(other.parent == parent.parent and other != parent for other in by_folder):
        return list(group)
    found = [path for path in group if _MASK.search(path.name) and not NO_LESION.search(path.name)]
    return found if len(found) < len(group) or len(found) == 1 else []


def _pair(images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Masks by image: of the same name in the folder beside it, of a longer name in the same folder, or alone with few images."""
    pairs: dict[PurePosixPath, str] = {}
    for mask in masks:
        near = [image for image in images if image.parent == mask.parent]
        beside = [image for image in images if image.parent.parent == mask.parent.parent and stem_of(image) == stem_of(mask)]
        longer = sorted((image for image in near if stem_of(mask).startswith(stem_of(image))), key=lambda image: len(image.name))
        chosen = beside or longer[-1:] or (near if len(near) <= _MOST_SEQUENCES else [])
        for image in chosen:
            pairs.setdefault(image, mask.as_posix())
    return pairs


def _mask_of_series(place: PurePosixPath, masks: set[PurePosixPath]) -> str:
    near = sorted(mask for mask in masks if mask.parent in (place, place.parent))
    return near[0].as_posix() if len(near) == 1 else ""


def _common(folders: Sequence[PurePosixPath]) -> PurePosixPath:
    """The folder that all scans share; a lone folder counts from its parent, so that it can name its patient."""
    unique = sorted({str(place) for place in folders})
    if len(unique) == 1:
        return PurePosixPath(unique[0]).parent
    return PurePosixPath(os.path.commonpath(unique)) if unique else PurePosixPath()
