"""Find the scans, masks and patients of a folder from the way it is laid out: a table, BIDS, nnU-Net, or plain files.

A layout only names files; whether they can be read is decided when they are read. Links are never followed.
"""

import csv
import io
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medssl.data.manifest import Manifest, ManifestRow, name_rows
from medssl.errors import ManifestError, UsageError
from medssl.io.discover import Source, find_sources
from medssl.io.options import ReadOptions

logger = logging.getLogger(__name__)

_TABLES = ("patients.csv", "images.csv", "manifest.csv")
_NIFTI = (".nii.gz", ".nii")
_IMAGES = (*_NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MASK = re.compile(r"lesion|mask|tumou?r|seg|label", re.IGNORECASE)
_BRAIN = re.compile(r"brain[ _-]?mask|desc-brain|brainextract|skullstrip", re.IGNORECASE)
_TISSUE = re.compile(r"(desc|label)-(aseg|aparc|aparcaseg|brain|tissue|gm|wm|csf|head|fov)", re.IGNORECASE)
_BIDS_IMAGE = re.compile(r"_(FLAIR|T1w|T2w|PDw|T2star|T2starw|SWI|swi|T1rho|UNIT1|ct|CT|dwi|pet)$")
_BIDS_MASK = re.compile(r"(lesion[a-z-]*|mask|dseg|roi|probseg)$", re.IGNORECASE)
_BIDS_DRAWN_ON = ("FLAIR", "T1w", "T2w")  # where a mask does not name its sequence, the first of these that exists
_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
_MAX_ID = 112  # letters of a scan_id that a number can be put behind
_MOST_SEQUENCES = 8  # a folder with more images holds patients, not sequences of one patient


def find_layout(folder: Path, *, layout: str | None = None, labels: Path | None = None) -> list[ManifestRow]:
    """The scans of a folder, sorted by path.

    Args:
        folder: The data folder; all paths in the rows are relative to it.
        layout: `table`, `bids`, `nnunet` or `plain`; None takes the first that fits, in this order.
        labels: A table of labels. Alone it says which scans there are; with a `layout` it completes the scans that the layout finds.

    Raises:
        UsageError: There is no such folder or layout.
        ManifestError: A table is not usable.
    """
    if not folder.is_dir():
        raise UsageError(f"not_found: there is no folder {folder.name}")
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout}")
    if labels is not None and layout in (None, "table"):
        return _sorted(Manifest.read(labels, root=folder).rows)
    name = layout or detect(folder)
    rows = _sorted(name_rows(LAYOUTS[name](folder)))
    logger.info("layout %s: %d scans", name, len(rows))
    return rows if labels is None else _complete(rows, Manifest.read(labels, root=folder).rows)


def split_volumes(folder: Path, rows: Sequence[ManifestRow], options: ReadOptions) -> list[ManifestRow]:
    """Rows of files with several volumes as a row for each volume, where the options split such files; ids end in the volume's number.

    A mask of as many volumes is split too; any other mask belongs to each of them.
    """
    return [part for row in rows for part in _volumes(folder, row, options)] if options.four_d == "split" else list(rows)


def _volumes(folder: Path, row: ManifestRow, options: ReadOptions) -> list[ManifestRow]:
    images = _parts(folder, row.image, options)
    lesions = _parts(folder, row.lesion, options) if row.lesion else []
    if len(images) < 2:
        return [row]
    lesions = lesions if len(lesions) == len(images) else [row.lesion] * len(images)
    names = [f"{row.scan_id[:_MAX_ID]}-{PurePosixPath(image).name}" for image in images]
    return [replace(row, scan_id=name, image=image, lesion=lesion) for name, image, lesion in zip(names, images, lesions, strict=True)]


def _parts(folder: Path, image: str, options: ReadOptions) -> list[str]:
    """The places of the volumes of a file, or of the one scan that is not split."""
    if ";" in image or (folder / image).is_dir():
        return [image]
    try:
        found = [each.source for each in find_sources(folder / image, options) if each.volume is not None]
    except UsageError:
        return [image]  # not there: reading it says so
    return [f"{image}/{PurePosixPath(each).name}" for each in found] or [image]


def detect(folder: Path) -> str:
    """The name of the layout of a folder."""
    if _find_table(folder) is not None:
        return "table"
    if any(place.is_dir() for place in folder.glob("sub-*")):
        return "bids"
    return "nnunet" if (folder / "imagesTr").is_dir() else "plain"


def _sorted(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    return sorted(rows, key=lambda row: (row.image, row.scan_id))


def _complete(rows: Sequence[ManifestRow], labels: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Rows of a layout with what a table says about them; a scan that the layout does not know is refused."""
    by_image = {row.image: row for row in labels}
    lost = set(by_image) - {row.image for row in rows}
    if lost:
        raise ManifestError(
            "not_found", f"the labels name {len(lost)} scans that the layout does not find; leave --layout out to use the table"
        )
    return [_filled(row, by_image[row.image]) if row.image in by_image else row for row in rows]


def _filled(row: ManifestRow, said: ManifestRow) -> ManifestRow:
    values = {
        name: getattr(said, name) or getattr(row, name)
        for name in ("lesion", "label", "site", "split", "age", "sex", "has_lesion", "report")
    }
    return replace(row, **values)


def _find_table(folder: Path) -> Path | None:
    """The first of the known tables that names images."""
    for name in _TABLES:
        table = folder / name
        if not table.is_file():
            continue
        with table.open("rb") as stream:
            header = stream.readline(4096).decode("utf-8-sig", errors="replace").casefold()
        if {cell.strip().strip('"') for cell in re.split(r"[,;\t]", header)} & {"image", "path", "file", "filename"}:
            return table
        logger.warning("%s has no column image and was not used", name)
    return None


def _table(folder: Path) -> list[ManifestRow]:
    table = _find_table(folder)
    if table is None:
        raise ManifestError("missing_column", f"no table with a column image in {folder.name}; {', '.join(_TABLES)} are looked for")
    return list(Manifest.read(table, root=folder).rows)


def _bids(folder: Path) -> list[ManifestRow]:
    """One row an image below `sub-*`; masks stand beside it or below `derivatives`."""
    people = _participants(folder / "participants.tsv")
    files = [path for path in _files(folder) if path.name.endswith(_NIFTI) and re.match(r"sub-[^_]+_", path.name)]
    masks: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    images: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        if _is_bids_mask(path):
            masks[_session(path)].append(path)
        elif path.parts[0].startswith("sub-") and _BIDS_IMAGE.search(_stem(path)):
            images[_session(path)].append(path)
    rows = (_bids_row(path, images[session], masks[session]) for session in sorted(images) for path in images[session])
    return [_described(row, people.get(row.patient, {})) for row in rows]


def _described(row: ManifestRow, person: Mapping[str, str]) -> ManifestRow:
    label, site, age, sex = (person.get(name, "") for name in ("label", "site", "age", "sex"))
    return replace(row, label=label, site=site, age=age, sex=sex)


def _is_bids_mask(path: PurePosixPath) -> bool:
    stem = _stem(path)
    return bool(_BIDS_MASK.search(stem)) and not (_TISSUE.search(stem) or _BRAIN.search(stem)) and not _BIDS_IMAGE.search(stem)


def _bids_row(image: PurePosixPath, others: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> ManifestRow:
    stems = {_stem(other) for other in others}
    named = [mask for mask in masks if _stem(mask).startswith(_stem(image))]
    free = [mask for mask in masks if not any(_stem(mask).startswith(stem) for stem in stems)]
    drawn_on = next((stem for kind in _BIDS_DRAWN_ON for stem in sorted(stems) if stem.endswith(f"_{kind}")), min(stems))
    fits = named or (free if _stem(image) == drawn_on else [])
    modality = {"ct": "CT", "pet": "PT"}.get(_stem(image).rsplit("_", 1)[-1].casefold(), "MR")
    lesion = min(fits, key=lambda mask: ("lesion" not in mask.name.casefold(), str(mask))).as_posix() if fits else ""
    return ManifestRow("", image.name.split("_")[0], image.as_posix(), lesion=lesion, modality=modality)


def _session(path: PurePosixPath) -> str:
    found = re.match(r"(sub-[^_]+)(_ses-[^_]+)?", path.name)
    return found.group(0) if found else ""


def _participants(table: Path) -> dict[str, dict[str, str]]:
    """Age, sex, site and group by participant, where the data set tells them."""
    if not table.is_file():
        return {}
    lines = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig", errors="replace")), delimiter="\t")
    found = {}
    for line in lines:
        cells = {key.casefold(): value.strip() for key, value in line.items() if isinstance(key, str) and isinstance(value, str)}
        cells = {key: "" if value.casefold() == "n/a" else value for key, value in cells.items()}
        label = cells.get("label") or cells.get("diagnosis") or cells.get("group", "")
        found[cells.get("participant_id", "")] = {"label": label} | {name: cells.get(name, "") for name in ("site", "age", "sex")}
    return found


def _nnunet(folder: Path) -> list[ManifestRow]:
    """Cases of `imagesTr` and, with their truth as split `test`, of `imagesTs`; channels `_0000`, `_0001` are joined, absent ones empty."""
    names = _channel_names(folder / "dataset.json")
    modality = (
        "CT" if names and all(name.upper() == "CT" for name in names) else ("MR" if any("MR" in name.upper() for name in names) else "")
    )
    parts = {part: _nnunet_cases(folder, f"images{part}") for part in ("Tr", "Ts")}
    wanted = sorted({number for cases in parts.values() for channels in cases.values() for number in channels})
    rows = []
    for part, case, channels in ((part, case, cases[case]) for part, cases in parts.items() for case in sorted(cases)):
        image = ";".join(channels.get(number, "") for number in wanted)
        places = [f"labels{part}/{case}{suffix}" for suffix in _IMAGES]
        lesion = next((place for place in places if (folder / place).is_file()), "")
        rows.append(ManifestRow("", case, image, split="test" if lesion and part == "Ts" else "", lesion=lesion, modality=modality))
    return rows


def _nnunet_cases(folder: Path, images: str) -> dict[str, dict[str, str]]:
    """The files of a folder, by case and number of the channel (empty for a name without one)."""
    cases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in _files(folder / images) if (folder / images).is_dir() else ():
        if path.name.casefold().endswith(_IMAGES):
            case, number = re.subn(r"_\d{4}$", "", _stem(path))
            cases[case][_stem(path)[-4:] if number else ""] = f"{images}/{path.as_posix()}"
    return cases


def _channel_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestError("bad_header", f"{path.name} is no JSON; repair or remove it") from error
    names = record.get("channel_names") or record.get("modality") if isinstance(record, dict) else None
    return [str(name) for name in names.values()] if isinstance(names, dict) else []


def _plain(folder: Path) -> list[ManifestRow]:
    """Every image file and every DICOM series is a scan; a mask is known by its name or the name of its folder.

    A zip archive is a folder of that name; one that cannot be read is a scan that will be refused.

    The patient is the one that DICOM headers tell (as a digest), else the first folder on the way to the scan, unless that folder holds
    many images: then each image is its own patient.
    """
    by_folder: defaultdict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    sources = [each for each in find_sources(folder) if ";" not in each.source and each.source.isprintable()]
    packed = [PurePosixPath(each.source) for each in sources if each.packed and each.format != "dicom"]
    refused = [PurePosixPath(each.source) for each in sources if each.format == "zip"]
    for path in (*(path for path in (*_files(folder), *packed) if path.name.casefold().endswith(_IMAGES)), *refused):
        by_folder[path.parent].append(path)
    series = {PurePosixPath(each.source): each for each in sources if each.format == "dicom"}
    masks = {path for group in by_folder.values() for path in _masks(group, by_folder)}
    images = [path for group in by_folder.values() for path in group if path not in masks | series.keys() and not _BRAIN.search(path.name)]
    lesions = _pair(images, sorted(masks))
    shared = _common([path.parent for path in images] + list(series))
    rows = [_plain_row(path, path.parent, shared, by_folder[path.parent], lesions.get(path, "")) for path in images]
    people = {row.patient for row in rows}
    return rows + [_series_row(each, place, shared, _mask_of_series(place, masks), people) for place, each in series.items()]


def _series_row(each: Source, place: PurePosixPath, shared: PurePosixPath, lesion: str, people: set[str]) -> ManifestRow:
    """A DICOM series; where images of other formats share its folder, the folder stays the patient of them all."""
    row = _plain_row(place, place, shared, (), lesion)
    patient = row.patient if row.patient in people else each.patient or row.patient
    return replace(row, patient=patient, modality=each.modality)


def _plain_row(
    image: PurePosixPath, place: PurePosixPath, shared: PurePosixPath, neighbours: Sequence[PurePosixPath], lesion: str
) -> ManifestRow:
    parts = list(place.relative_to(shared).parts)
    split = _SPLITS.get(parts[0].casefold(), "") if parts else ""
    parts = parts[1:] if split else parts
    patient = parts[0].removesuffix(".zip") if parts and len(neighbours) <= _MOST_SEQUENCES else ""
    return ManifestRow("", patient, image.as_posix(), split=split, lesion=lesion)


def _masks(group: Sequence[PurePosixPath], by_folder: Mapping[PurePosixPath, object]) -> list[PurePosixPath]:
    """The masks among the files of one folder; where all look like masks and no image folder stands beside it, none is."""
    parent = group[0].parent
    if _MASK.search(parent.name) and any(other.parent == parent.parent and other != parent for other in by_folder):
        return list(group)
    found = [path for path in group if _MASK.search(path.name) and not _BRAIN.search(path.name)]
    return found if len(found) < len(group) or len(found) == 1 else []


def _pair(images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Masks by image: of the same name in the folder beside it, of a longer name in the same folder, or alone with few images."""
    pairs: dict[PurePosixPath, str] = {}
    for mask in masks:
        near = [image for image in images if image.parent == mask.parent]
        beside = [image for image in images if image.parent.parent == mask.parent.parent and _stem(image) == _stem(mask)]
        longer = sorted((image for image in near if _stem(mask).startswith(_stem(image))), key=lambda image: len(image.name))
        chosen = beside or longer[-1:] or (near if len(near) <= _MOST_SEQUENCES else [])
        for image in chosen:
            pairs.setdefault(image, mask.as_posix())
        if not chosen:
            logger.warning("a mask belongs to no image that stands beside it: %s", mask.name)
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


def _files(folder: Path, below: str = "") -> Iterator[PurePosixPath]:
    """Regular files below a folder, sorted, relative to it; hidden ones and links are left out."""
    try:
        with os.scandir(folder / below) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except PermissionError:
        logger.warning("a folder may not be read and was left out: %s", below)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if ";" in entry.name or not entry.name.isprintable():
            logger.warning("%r was left out: a name with a semicolon or an unprintable character cannot stand in a manifest", entry.name)
        elif entry.is_dir(follow_symlinks=False):
            yield from _files(folder, f"{below}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield PurePosixPath(f"{below}{entry.name}")


def _stem(path: PurePosixPath) -> str:
    suffix = next((suffix for suffix in _IMAGES if path.name.casefold().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


LAYOUTS: Mapping[str, Callable[[Path], list[ManifestRow]]] = {"table": _table, "bids": _bids, "nnunet": _nnunet, "plain": _plain}
