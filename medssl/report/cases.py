"""Reading a results folder and the truth: findings, the reference table, and the maps of one scan at a time."""

import csv
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from medssl.cells import plain
from medssl.errors import ManifestError, ScanError, UsageError
from medssl.patients import first_spellings
from medssl.report.study import read_study
from medssl.scoring.finding import Finding

Array = NDArray[Any]
FACTS = ("site", "age", "sex", "vendor", "field", "slice_mm")
_LABELS = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class Truth:
    """What is known of a scan.

    Args:
        patient: Pseudonym; scans of one patient share it.
        site: Where it was made, empty where unknown.
        label: 1 with lesion, 0 without, None where unknown.
        lesion: The true mask, None where there is none.
        facts: What else the table says, of `FACTS`; empty ones are left out.
        class_label: Its class, or several with `;` between them; empty where unknown.
    """

    patient: str
    site: str
    label: int | None
    lesion: Path | None
    facts: Mapping[str, str] = field(default_factory=dict)
    class_label: str = ""


@dataclass(frozen=True)
class Case:
    """A scan with what was found and what is true."""

    finding: Finding
    truth: Truth | None

    @property
    def scan_id(self) -> str:
        """Name of the scan."""
        return self.finding.scan_id

    @property
    def rejected(self) -> bool:
        """Whether intake refused it."""
        return self.finding.status == "rejected"

    @property
    def has_score(self) -> bool:
        """Whether it has a score that is a number."""
        return not self.rejected and self.finding.score is not None and math.isfinite(self.finding.score)

    @property
    def patient(self) -> str:
        """Whose scan; a scan of an unknown patient stands for itself."""
        return self.truth.patient if self.truth is not None and self.truth.patient else f"scan {self.scan_id}"


@dataclass(frozen=True)
class Results:
    """A results folder.

    Args:
        folder: Where it lies.
        run: `run.json`, empty where it is absent.
        cases: Every scan, by name.
        has_reference: Whether there is a table of the truth.
        unmatched: Rows of that table whose scan is not in the folder.
        study: What the study states itself (`study.json` beside the reference or in the folder).
        missing: What those unmatched rows say.
    """

    folder: Path
    run: Mapping[str, Any]
    cases: tuple[Case, ...]
    has_reference: bool
    unmatched: int
    study: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[Truth, ...] = ()


@dataclass(frozen=True, eq=False)
class ScanMaps:
    """The maps of a scan (I, J, K) on one grid; None where there is none."""

    image: Array | None
    probability: Array | None
    mask: Array | None
    lesion: Array | None
    spacing_mm: tuple[float, float, float]


def read_results(folder: Path, *, reference: Path | None = None) -> Results:
    """Read a results folder; the truth comes from `reference`, else from its own `reference.csv` where there is one.

    Raises:
        UsageError: It holds no finding, its scoring is not finished, or the reference is not there.
        ManifestError: The reference table or `study.json` cannot be used, or a finding is damaged.
    """
    run = _read_run(folder / "run.json")
    findings = [Finding.read(path) for path in sorted((folder / "scans").glob("*.json"))]
    if not findings:
        raise UsageError(f"{folder.name} holds no results; give a folder that medssl score or medssl evaluate wrote")
    if run.get("started") and not run.get("finished"):
        raise UsageError(f"the scoring of {folder.name} was stopped or is still running; run its command again, which goes on, then report")
    if reference is not None and not reference.is_file():
        raise UsageError(f"the reference {reference.name} is not a file; give a CSV table with columns scan_id and label")
    table = reference or folder / "reference.csv"
    truths = read_reference(table, roots=(folder, table.parent)) if table.is_file() else {}
    cases = tuple(Case(finding, truths.get(finding.scan_id)) for finding in findings)
    found = {finding.scan_id for finding in findings}
    missing = tuple(truth for scan_id, truth in truths.items() if scan_id not in found)
    study = read_study(table.parent / "study.json") or read_study(folder / "study.json")
    return Results(folder, run, cases, table.is_file(), len(missing), study, missing)


def read_reference(path: Path, *, roots: Iterable[Path]) -> dict[str, Truth]:
    """The truth by scan_id, with patients as they are spelled first.

    Args:
        path: Table with columns scan_id, label and, where known, lesion, patient, site, age, sex, vendor, field, slice_mm.
        roots: Folders that the column lesion is relative to, first found first.

    Raises:
        ManifestError: `encoding`, `missing_column`, `bad_row`, `bad_label`, `conflicting_rows`, `no_rows`, `path_escape`, `not_found`.
    """
    rows = _rows(path)
    folders = tuple(roots)
    truths: dict[str, Truth] = {}
    for number, row in enumerate(rows, start=2):
        truth = _truth(row, f"{path.name} line {number}", folders)
        scan_id = row["scan_id"].strip()
        if truths.setdefault(scan_id, truth) != truth:
            raise ManifestError("conflicting_rows", f"{path.name} line {number} contradicts an earlier row of the same scan; keep one")
    spelled = first_spellings(truth.patient for truth in truths.values())
    return {scan_id: replace(truth, patient=patient) for (scan_id, truth), patient in zip(truths.items(), spelled, strict=True)}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except UnicodeDecodeError as error:
        raise ManifestError("encoding", f"{path.name} is not UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ManifestError("bad_row", f"{path.name} is not a comma-separated table; check its quotes") from error
    for column in ("scan_id", "label"):
        if column not in (reader.fieldnames or ()):
            raise ManifestError("missing_column", f"{path.name} has no column {column}; needed are scan_id and label")
    if not rows:
        raise ManifestError("no_rows", f"{path.name} has a header only; add a row for each scan")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ManifestError("bad_row", f"{path.name} line {number} has another number of fields than the header; correct it")
    return [{name: plain(cell) for name, cell in row.items()} for row in rows]


def _truth(row: Mapping[str, str], where: str, roots: tuple[Path, ...]) -> Truth:
    label = row["label"].strip()
    if label not in _LABELS:
        raise ManifestError("bad_label", f"{where} has a label that is not 1 (lesion), 0 (none) or empty (unknown)")
    lesion = row.get("lesion", "").strip()
    return Truth(
        patient=row.get("patient", "").strip(),
        site=row.get("site", "").strip(),
        label=_LABELS[label],
        lesion=_inside(lesion, where, roots) if lesion else None,
        facts={name: text for name in FACTS if (text := row.get(name, "").strip())},
        class_label=row.get("class", "").strip(),
    )


def _inside(name: str, where: str, roots: tuple[Path, ...]) -> Path:
    """A file below one of the roots; links do not lead out."""
    found = [(root.resolve(), (root / name).resolve()) for root in roots]
    inside = [path for root, path in found if path.is_relative_to(root)]
    if not inside:
        raise ManifestError("path_escape", f"{where} names a mask outside the folder; use a path relative to the results")
    for path in inside:
        if path.is_file():
            return path
    raise ManifestError("not_found", f"{where} names a mask that is not there; correct the column lesion or leave it empty")


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError("bad_header", "run.json is damaged; run medssl score again") from error
    return record if isinstance(record, dict) else {}


def read_maps(folder: Path, case: Case, *, image: bool) -> ScanMaps:
    """The maps of one scan; `image` asks for its grey values too.

    Raises:
        ScanError: `not_nifti` for a damaged map, `not_3d`, `size_mismatch` when a map lies on another grid, or `path_escape`.
    """
    kinds = ("image", "probability", "mask") if image else ("probability", "mask")
    paths = {kind: _map_path(folder, case, kind) for kind in kinds}
    if case.truth is not None and case.truth.lesion is not None:
        paths["lesion"] = case.truth.lesion
    maps = {kind: _read_map(path) for kind, path in paths.items() if path.is_file()}
    spacing = case.finding.spacing_mm or (1.0, 1.0, 1.0)
    grids = list(maps.values())
    if any(array.shape != grids[0][0].shape or not np.allclose(affine, grids[0][1], atol=0.01) for array, affine in grids):
        raise ScanError("size_mismatch", "the maps of the scan, or its true mask, lie on different grids")
    arrays = {kind: maps[kind][0] if kind in maps else None for kind in ("image", "probability", "mask", "lesion")}
    if grids:
        i, j, k = np.linalg.norm(grids[0][1][:3, :3], axis=0)
        spacing = (float(i), float(j), float(k))
    return ScanMaps(**arrays, spacing_mm=spacing)


def read_classes(folder: Path, case: Case) -> tuple[Array, Array] | None:
    """The predicted and the true class (I, J, K) of every voxel, 0 for none; None where they were not written.

    Raises:
        ScanError: `not_nifti` for a damaged map, `not_3d`, or `path_escape`.
    """
    paths = [_map_path(folder, case, kind) for kind in ("classes", "true_classes")]
    if not all(path.is_file() for path in paths):
        return None
    found, truth = (_read_map(path)[0] for path in paths)
    return found, truth


def _map_path(folder: Path, case: Case, kind: str) -> Path:
    """Where a map of a scan lies; links do not lead out of the folder.

    Raises:
        ScanError: `path_escape`.
    """
    path = folder / "maps" / f"{case.scan_id}_{kind}.nii.gz"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ScanError("path_escape", "a map of the scan lies outside the folder of the results")
    return path


def _read_map(path: Path) -> tuple[Array, NDArray[np.float64]]:
    try:
        image = nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ScanError("not_nifti", "a map of the scan cannot be read") from error
    if array.ndim != 3:
        raise ScanError("not_3d", f"a map of the scan has {array.ndim} axes, need 3")
    return array, np.asarray(image.affine, dtype=np.float64)
