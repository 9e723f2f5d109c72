"""Find the scans, masks and patients of a folder from the way it is laid out: a table, BIDS, nnU-Net, or plain files.

A layout only names files; whether they can be read is decided when they are read. Links are never followed.
"""

import csv
import io
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medssl.data.layout_files import IMAGES, NIFTI, files_below, is_image, stem_of
from medssl.data.layout_plain import NO_LESION, plain
from medssl.data.manifest import Manifest, ManifestRow, label_of, name_rows, read_table
from medssl.errors import ManifestError, UsageError
from medssl.io.discover import find_sources
from medssl.io.options import ReadOptions
from medssl.io.sources import SERIES

logger = logging.getLogger(__name__)

_TABLES = ("patients.csv", "images.csv", "manifest.csv")
_TISSUE = re.compile(r"(desc|label)-(aseg|aparc|aparcaseg|brain|tissue|gm|wm|csf|head|fov)", re.IGNORECASE)
_BIDS_IMAGE = re.compile(r"_(FLAIR|T1w|T2w|PDw|T2star|T2starw|SWI|swi|T1rho|UNIT1|ct|CT|dwi|pet)$")
_BIDS_MASK = re.compile(r"(lesion[a-z-]*|mask|dseg|roi|probseg)$", re.IGNORECASE)
_BIDS_UNNAMED = re.compile(r"_(dseg|probseg)$", re.IGNORECASE)
_TISSUE_PIPELINES = frozenset({"fmriprep", "smriprep", "freesurfer", "fastsurfer", "cat12", "qsiprep"})  # they segment tissue
_BIDS_DRAWN_ON = ("FLAIR", "T1w", "T2w")  # where a mask does not name its sequence, the first of these that exists
_TOLD = ("lesion", "label", "modality", "site", "split", "age", "sex", "has_lesion", "report", "defaced")  # by a table to a layout
_INNER = re.compile(rf"t\d{{3,}}|{SERIES.pattern}")  # a volume of a file, a series of a folder
_MAX_ID = 112  # letters of a scan_id that a number can be put behind


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
        return _named(folder, labels)
    name = layout or detect(folder)
    rows = _sorted(name_rows(LAYOUTS[name](folder)))
    logger.info("layout %s: %d scans", name, len(rows))
    if labels is None:
        return rows
    patients = {cells.get("patient", "") for cells in read_table(labels)}
    return name_rows(_complete(rows, Manifest.read(labels, root=folder).rows, patients))


def split_volumes(folder: Path, rows: Sequence[ManifestRow], options: ReadOptions) -> list[ManifestRow]:
    """Rows of files with several volumes as a row for each volume, where the options split such files; ids end in the volume's number.

    A mask of as many volumes is split too; any other mask belongs to each of them.
    """
    return [part for row in rows for part in _volumes(folder, row, options)] if options.four_d == "split" else list(rows)


def _volumes(folder: Path, row: ManifestRow, options: ReadOptions) -> list[ManifestRow]:
    images = _parts(folder, row.image, options)
    if len(images) < 2:
        return [row]
    masks = [_masks(folder, mask, options, count=len(images)) for mask in (row.lesion, row.defaced)]
    names = [f"{row.scan_id[:_MAX_ID]}-{PurePosixPath(image).name}" for image in images]
    volumes = zip(names, images, *masks, strict=True)
    return [replace(row, scan_id=name, image=image, lesion=lesion, defaced=defaced) for name, image, lesion, defaced in volumes]


def _masks(folder: Path, mask: str, options: ReadOptions, *, count: int) -> list[str]:
    """The mask of each of `count` volumes: one of as many, or the same."""
    parts = _parts(folder, mask, options) if mask else []
    return parts if len(parts) == count else [mask] * count


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


def _complete(rows: Sequence[ManifestRow], labels: Sequence[ManifestRow], patients: Set[str]) -> list[ManifestRow]:
    """Rows of a layout with what a table says about them, patients if it names them; a scan that the layout does not know is refused."""
    by_image = {row.image: row for row in labels}
    lost = set(by_image) - {row.image for row in rows}
    if lost:
        raise ManifestError(
            "not_found", f"the labels name {len(lost)} scans that the layout does not find; leave --layout out to use the table"
        )
    regions = {row.defaced for row in labels} - {""}
    masks = regions | {row.lesion for row in labels}  # whatever they are called
    rows = [replace(row, lesion="") if row.lesion in regions else row for row in rows]
    return [_filled(row, by_image[row.image], patients) if row.image in by_image else row for row in rows if row.image not in masks]


def _filled(row: ManifestRow, said: ManifestRow, patients: Set[str]) -> ManifestRow:
    patient = said.patient if said.patient in patients else row.patient
    return replace(row, patient=patient, **{name: getattr(said, name) or getattr(row, name) for name in _TOLD})


def _find_table(folder: Path) -> Path | None:
    """The first of the known tables that names images."""
    for name in _TABLES:
        table = folder / name
        if not table.is_file() or (name == "manifest.csv" and (folder / "store.json").is_file()):
            continue  # the manifest of a store is no table of the folder
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
    return _named(folder, table)


def _named(folder: Path, table: Path) -> list[ManifestRow]:
    """The scans that a table names; how many files it does not name is said."""
    rows = Manifest.read(table, root=folder).rows
    named = {part for row in rows for part in (*row.sources, row.lesion, row.defaced)}
    named |= {str(PurePosixPath(part).parent) for part in named if _INNER.fullmatch(PurePosixPath(part).name)}
    left = sum(not named & {str(path), *map(str, path.parents)} for path in files_below(folder) if is_image(path) or path.suffix == ".dcm")
    if left:
        logger.warning("%d image files are not in %s and were left out; --layout plain --labels %s takes all", left, table.name, table.name)
    return _sorted(rows)


def _bids(folder: Path) -> list[ManifestRow]:
    """One row an image below `sub-*`; masks stand beside it or below `derivatives`."""
    people = _participants(folder / "participants.tsv")
    files = [path for path in files_below(folder) if path.name.endswith(NIFTI) and re.match(r"sub-[^_]+_", path.name)]
    masks: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    images: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        if _is_bids_mask(path):
            masks[_session(path)].append(path)
        elif path.parts[0].startswith("sub-") and _BIDS_IMAGE.search(stem_of(path)):
            images[_session(path)].append(path)
    rows = [_bids_row(path, images[session], masks[session]) for session in sorted(images) for path in images[session]]
    unused = len(files) - sum(len(found) for found in (*masks.values(), *images.values()))
    if unused:
        logger.info("%d NIfTI files are neither a scan nor a lesion mask by their names and were left out", unused)
    return [_described(row, people.get(row.patient, {})) for row in rows]


def _described(row: ManifestRow, person: Mapping[str, str]) -> ManifestRow:
    label, site, age, sex = (person.get(name, "") for name in ("label", "site", "age", "sex"))
    return replace(row, label=label, site=site, age=age, sex=sex)


def _is_bids_mask(path: PurePosixPath) -> bool:
    stem = stem_of(path)
    is_tissue = _TISSUE.search(stem) or NO_LESION.search(stem) or (_BIDS_UNNAMED.search(stem) and _TISSUE_PIPELINES & set(path.parts))
    return bool(_BIDS_MASK.search(stem)) and not is_tissue and not _BIDS_IMAGE.search(stem)


def _bids_row(image: PurePosixPath, others: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> ManifestRow:
    stems = {stem_of(other) for other in others}
    named = [mask for mask in masks if stem_of(mask).startswith(stem_of(image))]
    free = [mask for mask in masks if not any(stem_of(mask).startswith(stem) for stem in stems)]
    drawn_on = next((stem for kind in _BIDS_DRAWN_ON for stem in sorted(stems) if stem.endswith(f"_{kind}")), min(stems))
    fits = named or (free if stem_of(image) == drawn_on else [])
    modality = {"ct": "CT", "pet": "PT"}.get(stem_of(image).rsplit("_", 1)[-1].casefold(), "MR")
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
    for number, line in enumerate(lines, start=2):
        cells = {key.casefold(): value.strip() for key, value in line.items() if isinstance(key, str) and isinstance(value, str)}
        cells = {key: "" if value.casefold() == "n/a" else value for key, value in cells.items()}
        label = cells.get("label") or cells.get("diagnosis") or cells.get("group", "")
        label = label_of(label, f"row {number} of {table.name}") if label else ""
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
        places = [f"labels{part}/{case}{suffix}" for suffix in IMAGES]
        lesion = next((place for place in places if (folder / place).is_file()), "")
        rows.append(ManifestRow("", case, image, split="test" if lesion and part == "Ts" else "", lesion=lesion, modality=modality))
    return rows


def _nnunet_cases(folder: Path, images: str) -> dict[str, dict[str, str]]:
    """The files of a folder, by case and number of the channel (empty for a name without one)."""
    cases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in files_below(folder / images) if (folder / images).is_dir() else ():
        if is_image(path):
            case, number = re.subn(r"_\d{4}$", "", stem_of(path))
            cases[case][stem_of(path)[-4:] if number else ""] = f"{images}/{path.as_posix()}"
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


LAYOUTS: Mapping[str, Callable[[Path], list[ManifestRow]]] = {"table": _table, "bids": _bids, "nnunet": _nnunet, "plain": plain}
