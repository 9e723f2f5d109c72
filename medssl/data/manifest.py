"""The manifest: the one table that describes a data set, a row a scan.

A table that a user wrote and a manifest that medssl wrote are read by the same code. Columns beyond the fields of `ManifestRow` are
ignored; a comma, a semicolon or a tab separates them.
"""

import csv
import hashlib
import io
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Self

from medssl.errors import ManifestError
from medssl.files import write_text
from medssl.patients import first_spellings, patient_key

logger = logging.getLogger(__name__)

_ALIASES = {
    "path": "image",
    "file": "image",
    "filename": "image",
    "mask": "lesion",
    "class": "label",
    "patient_id": "patient",
    "participant_id": "patient",
    "subject": "patient",
}
_SPLITS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
_NOT_LABELS = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "inf", "-inf", "?"})
_UNKNOWN = frozenset({"unknown", "unlabelled", "unlabeled"})
_CLASS_NAME = re.compile(r"[^\W_][\w .,+()'’/-]{0,63}")
_SCAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_SUFFIXES = (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".bmp")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_OWN_COLUMN = "sha256"  # only tables that medssl wrote have it


@dataclass(frozen=True)
class ManifestRow:
    """One scan.

    Args:
        scan_id: Unique, fit for a file name.
        patient: Patient, or the group that must stay in one split.
        image: Source relative to the data folder, posix; several sequences of one scan are joined by `;`, in the same order in all rows;
            one that the scan lacks is empty, as in `flair.nii.gz;;t2.nii.gz`.
        site: Hospital or scanner.
        split: `train`, `val`, `test` or another name; empty until it is drawn.
        leakage: Where leakage was allowed and concerns this scan: whose content lies in which other split, and why it may.
        lesion: Mask relative to the data folder; empty where there is none.
        label: Class name, or several with `;` between them; empty where it is not known.
        modality: DICOM modality code.
        nominal: The source gives no physical geometry.
        sha256: Digest of its voxels, that of the intake report where all values are whole numbers.
        has_lesion: `1`, `0`, or empty where it is not known.
        age: Years, as written in the source.
        sex: As written in the source.
        vendor: Maker of the scanner.
        field: Field strength or tube voltage, such as `3 T` or `120 kV`.
        slice_mm: Distance of the slices of the scan as it was made.
        report: A sentence on the scan, such as its radiology report, for pretraining on images and text; it stays in manifests.
        defaced: Mask of the region that was defaced, relative to the data folder; empty where none is given.
    """

    scan_id: str
    patient: str
    image: str
    site: str = ""
    split: str = ""
    leakage: str = ""
    lesion: str = ""
    label: str = ""
    modality: str = ""
    nominal: bool = False
    sha256: str = ""
    has_lesion: str = ""
    age: str = ""
    sex: str = ""
    vendor: str = ""
    field: str = ""
    slice_mm: str = ""
    report: str = ""
    defaced: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the sequences that the scan has are read from."""
        return tuple(filter(None, self.image.split(";")))


_NOTES = ("leakage", "vendor", "field", "slice_mm")
COLUMNS = tuple(field.name for field in fields(ManifestRow))


@dataclass(frozen=True)
class Manifest:
    """All scans of a data set.

    Raises:
        ManifestError: `conflicting_rows` when two rows share a scan_id, `patient_leak` when a patient is in two splits.
    """

    rows: tuple[ManifestRow, ...]

    def __post_init__(self) -> None:
        if len({row.scan_id for row in self.rows}) < len(self.rows):
            raise ManifestError("conflicting_rows", "two rows have the same scan_id; each scan needs its own")
        _refuse_patient_leak(self.rows)

    @classmethod
    def read(cls, path: Path, *, root: Path | None = None) -> Self:
        """Read and check a table.

        Args:
            path: CSV or TSV, UTF-8, with a header; needs a column `image` (or `path`).
            root: The data folder; then paths may also be relative to the table's own folder, and must end inside `root`.

        Raises:
            ManifestError: With the reason code of what is wrong: `not_found`, `empty_file`, `encoding`, `missing_column`, `no_rows`,
                `bad_row`, `bad_label`, `not_a_path`, `path_escape`, `conflicting_rows`, `patient_leak`.
        """
        table = read_table(path)
        if "patient" not in table[0]:
            logger.warning(
                "%s has no column patient: each image counts as a patient of its own, and two of one patient may be split", path.name
            )
        rows = [_parse(cells, number, table=path, root=root) for number, cells in enumerate(table, start=2)]
        return cls(tuple(name_rows(_drop_repeats(rows))))

    def write(self, path: Path) -> None:
        """Write as CSV, in one step: a reader sees the old table or the new one. Where no row names a defaced region, no column does.

        Raises:
            NoSpaceError: The disk is full; the old table is intact.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        columns = [name for name in COLUMNS if name != "defaced" or any(row.defaced for row in self.rows)]
        writer.writerow(columns)
        writer.writerows([_cell(getattr(row, name)) for name in columns] for row in self.rows)
        write_text(path, text.getvalue())

    def split(self, name: str) -> tuple[ManifestRow, ...]:
        """The rows of one split; `all` gives every row."""
        return self.rows if name == "all" else tuple(row for row in self.rows if row.split == name)

    def counts(self) -> str:
        """How many rows each split has, in words."""
        return ", ".join(f"{len(self.split(name))} {name}" for name in sorted({row.split for row in self.rows}))

    def digest(self) -> str:
        """Identity of the content, whatever the order of the rows, the notes on leakage and what is only told in reports."""
        rows = sorted((asdict(row) for row in self.rows), key=lambda row: str(row["scan_id"]))
        for row in rows:
            for note in (*_NOTES, *([] if row["defaced"] else ["defaced"])):
                del row[note]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def class_names(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({row.label for row in self.rows} - {""}))


def row_warnings(row: ManifestRow) -> tuple[str, ...]:
    """Reason codes of what is odd in a row but does not refuse it: `formula_text`, `missing_sequence`."""
    cells = (row.patient, row.site, row.label, row.age, row.sex, row.vendor, row.field)
    formula = any(cell.startswith(_FORMULA) for cell in cells)
    return (*["formula_text"] * formula, *["missing_sequence"] * ("" in row.image.split(";")))


def scan_id_of(image: str) -> str:
    """A scan's name from its relative path, fit for a file name; long ones end in a hash of the whole."""
    first = next(filter(None, image.split(";")), "")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", _without_suffix(first).replace("/", "__")).strip("._-") or "scan"
    return name if len(name) <= 100 else f"{name[:87]}-{hashlib.sha256(first.encode()).hexdigest()[:12]}"


def name_rows(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """Give a scan_id to rows without one, from their path, and a patient (the file's name where that is unique) likewise.

    All rows of a patient get the first spelling of the name, so that patients can be told apart by their names as they stand.
    """
    listed = list(rows)
    stems = [PurePosixPath(_without_suffix(row.sources[0])).name for row in listed]
    unique = len(set(stems)) == len(stems)
    taken = {row.scan_id for row in listed if row.scan_id}
    named = []
    for row, stem in zip(listed, stems, strict=True):
        scan_id = row.scan_id or _free_name(scan_id_of(row.image), taken)
        taken.add(scan_id)
        named.append(replace(row, scan_id=scan_id, patient=row.patient or (stem if unique and stem else scan_id)))
    spelled = first_spellings(row.patient for row in named)
    return [replace(row, patient=patient) for row, patient in zip(named, spelled, strict=True)]


def read_table(path: Path) -> list[dict[str, str]]:
    """The cells of a table, by lower-case column name, aliases resolved.

    Raises:
        ManifestError: `not_found`, `not_a_file`, `empty_file`, `encoding`, `missing_column`, `bad_row`, `no_rows`.
    """
    text = _read_text(path)
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if any(line)]
    except csv.Error as error:
        raise ManifestError("bad_row", f"{path.name} is no well-formed table ({error}); check its quotes") from error
    if not lines:
        raise ManifestError("no_rows", f"{path.name} holds only blanks; a header and a row a scan are needed")
    header = _header(lines[0], path.name)
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise ManifestError("bad_row", f"row {number} of {path.name} has {len(line)} fields, the header has {len(header)}")
    if len(lines) == 1:
        raise ManifestError("no_rows", f"{path.name} has a header and no row")
    return [dict(zip(header, (cell.strip(" ") for cell in line), strict=True)) for line in lines[1:]]


def _read_text(path: Path) -> str:
    if not path.exists():
        raise ManifestError("not_found", f"there is no table {path.name}")
    if not path.is_file():
        raise ManifestError("not_a_file", f"{path.name} is not a file")
    data = path.read_bytes()
    if not data:
        raise ManifestError("empty_file", f"{path.name} has zero bytes")
    if b"\0" in data:
        raise ManifestError("encoding", f"{path.name} holds NUL; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError("encoding", f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8 text") from error


def _header(cells: Sequence[str], name: str) -> list[str]:
    header = [cell.strip().casefold() for cell in cells]
    for position, column in enumerate(header):
        target = _ALIASES.get(column, column)
        if target not in header:
            header[position] = target
    if "image" not in header:
        # A table without a header shows its first patient here, so the columns found are counted, not named.
        raise ManifestError("missing_column", f"{name} has no column image (or path) among its {len(header)}; is the header there?")
    if len(set(header)) < len(header):
        raise ManifestError("bad_row", f"the header of {name} has one column name twice")
    return header


def _parse(cells: Mapping[str, str], number: int, *, table: Path, root: Path | None) -> ManifestRow:
    where = f"row {number} of {table.name}"
    known = {name: cells.get(name, "") for name in COLUMNS}
    own = _OWN_COLUMN in cells
    label = "" if "label" not in cells or (own and not known["label"]) else label_of(known["label"], where)
    image = ";".join(part and _place(part, where, table=table, root=root) for part in _sequences(known["image"], where))
    masks = {name: known[name] and _place(known[name], where, table=table, root=root) for name in ("lesion", "defaced")}
    split = known["split"].casefold()
    if known["scan_id"] and not _SCAN_ID.fullmatch(known["scan_id"]):
        raise ManifestError("bad_row", f"{where} has a scan_id that is not fit for a file name; letters, digits, . _ - are allowed")
    if known["has_lesion"] not in ("", "0", "1"):
        raise ManifestError("bad_label", f"{where} has has_lesion neither 0, 1 nor empty")
    nominal = known["nominal"].casefold() in ("1", "true")
    changed = {"image": image, **masks, "label": label, "split": _SPLITS.get(split, split)}
    return ManifestRow(**{**known, **changed, "nominal": nominal})  # type: ignore[arg-type]


def label_of(text: str, where: str) -> str:
    """A label as it is kept: one class, or several with `;` between them.

    Raises:
        ManifestError: `bad_label`.
    """
    parts = [part.strip() for part in text.split(";")]
    return ";".join(_class(part, where) for part in parts) if len(parts) > 1 else _class(text, where)


def _class(text: str, where: str) -> str:
    if text.casefold() in _UNKNOWN:
        return ""
    if text.startswith(_FORMULA) and len(text) > 1 and not text[1:].replace(".", "").isdigit():
        return text
    if text.casefold() in _NOT_LABELS or not _CLASS_NAME.fullmatch(text) or re.fullmatch(r"\d+\.\d*[1-9]\d*", text):
        raise ManifestError("bad_label", f"{where} has a label that is empty or no class name; write the class, or unknown")
    return re.sub(r"(\d+)\.0+", r"\1", text) if re.fullmatch(r"\d+\.0+", text) else text


def _sequences(text: str, where: str) -> list[str]:
    """The paths of the sequences of a scan, empty for one that it lacks."""
    parts = [part.strip() for part in text.split(";")]
    if not any(parts):
        raise ManifestError("bad_row", f"{where} names no image")
    return parts


def _place(text: str, where: str, *, table: Path, root: Path | None) -> str:
    """A path of a table as a plain posix path below the data folder."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(//|[^/]*$)", text) or text.startswith(("//", "\\\\")):
        raise ManifestError("not_a_path", f"{where} has a URL where a path in the folder is needed; copy the file there")
    plain = text.replace("\\", "/")
    if plain.startswith(("/", "~")) or PureWindowsPath(plain).drive:
        raise ManifestError("path_escape", f"{where} has an absolute path; write it relative to the data folder")
    normal = posixpath.normpath(plain)
    if root is not None:
        return _inside(normal, where, table=table, root=root)
    if normal.split("/")[0] == "..":
        raise ManifestError("path_escape", f"{where} has a path that leads out of the data folder")
    return normal


def _inside(normal: str, where: str, *, table: Path, root: Path) -> str:
    """The path below the resolved root, taken from the root or, where there is nothing, from the table's own folder."""
    top = root.resolve()
    bases = (top, table.parent.resolve())
    inside = [place for place in (Path(os.path.normpath(base / normal)) for base in bases) if place.is_relative_to(top)]
    target = next((place for place in inside if os.path.lexists(place)), inside[0] if inside else None)
    if target is None or not target.resolve().is_relative_to(top):
        raise ManifestError("path_escape", f"{where} has a path that leads out of the data folder")
    return target.relative_to(top).as_posix()


def _drop_repeats(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Rows said once; one scan of one patient described in two ways is refused."""
    kept: dict[tuple[str, str], ManifestRow] = {}
    for row in rows:
        key = (row.image, patient_key(row.patient))
        other = kept.setdefault(key, row)
        if other is not row and other != replace(row, patient=other.patient):
            raise ManifestError("conflicting_rows", f"one image of one patient stands in two rows that differ: {scan_id_of(row.image)}")
    if len(kept) < len(rows):
        logger.warning("%d repeated rows were dropped", len(rows) - len(kept))
    return list(kept.values())


def _refuse_patient_leak(rows: Sequence[ManifestRow]) -> None:
    splits: dict[str, ManifestRow] = {}
    for row in rows:
        if not (row.split and row.patient):
            continue
        other = splits.setdefault(patient_key(row.patient), row)
        if other.split != row.split:
            raise ManifestError(
                "patient_leak",
                f"one patient is in split {other.split} ({other.scan_id}) and in {row.split} ({row.scan_id}); keep a patient in one",
            )


def _without_suffix(image: str) -> str:
    suffix = next((suffix for suffix in _SUFFIXES if image.casefold().endswith(suffix)), "")
    return image[: len(image) - len(suffix)]


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _cell(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
