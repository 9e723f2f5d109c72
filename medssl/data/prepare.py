"""From a folder of scans to a store: read, refuse, split by patient, preprocess."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.progress import track

from medssl.data.layouts import find_layout
from medssl.data.leakage import check
from medssl.data.manifest import Manifest, ManifestRow, row_warnings
from medssl.data.preprocess import Preprocess
from medssl.data.splits import assign
from medssl.data.store import array_path, encode, write_array, write_preprocess
from medssl.errors import ConflictError, ManifestError, ScanError, UsageError
from medssl.io.discover import read_volume
from medssl.io.voxels import voxels_sha256
from medssl.volume import Volume

logger = logging.getLogger(__name__)

_ISOTROPIC = 2.0  # slices at most this many times as far apart as pixels are resampled too
_LARGEST_MATRIX = 256  # in-plane voxels of scans without geometry


@dataclass(frozen=True, eq=False)
class Intake:
    """What reading one row of the layout gave: a usable row, or the reason it was refused.

    Args:
        row: The row, completed from the scan.
        shape: Voxels along I, J, K; None when refused.
        spacing_mm: Voxel size; None when refused.
        affine_ras: 4 x 4; None when refused.
        refusal: Reason code of a refusal, empty when the scan is used.
        warnings: Reason codes of a scan that is used all the same.
    """

    row: ManifestRow
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    affine_ras: list[list[float]] | None = None
    refusal: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """`accepted`, `accepted_with_warning` or `rejected`."""
        if self.refusal:
            return "rejected"
        return "accepted_with_warning" if self.warnings else "accepted"

    def as_record(self) -> dict[str, object]:
        """The intake as a record of `intake.json`."""
        return {
            "scan_id": self.row.scan_id,
            "source": self.row.image,
            "format": "dicom" if not Path(self.row.image).suffix else Path(self.row.image.split(";")[0]).suffix.lstrip("."),
            "status": self.status,
            "reasons": [self.refusal] if self.refusal else list(self.warnings),
            "modality": self.row.modality,
            "shape": self.shape,
            "spacing_mm": self.spacing_mm,
            "affine_ras": self.affine_ras,
            "voxels_sha256": self.row.sha256 or None,
        }


def prepare(
    folder: Path, out: Path, *, layout: str | None = None, labels: Path | None = None, preprocess: Preprocess | None = None, seed: int = 0
) -> tuple[Manifest, int]:
    """Read every scan of a folder, split by patient, and write a store.

    Args:
        folder: Scans, in a layout that is found or named.
        out: The store; may hold the same scans already, then nothing is done twice.
        layout: `table`, `bids`, `nnunet` or `plain`; None finds it.
        labels: A table with labels, instead of one in the folder.
        preprocess: Grid and intensity; None plans them from the scans.
        seed: Of the split.

    Returns:
        The manifest of the store, and how many scans were left out.

    Raises:
        UsageError: No folder.
        ManifestError: No usable scan, or the same voxels under two patients in two splits.
        ConflictError: `out` holds a store with another preprocessing.
    """
    if not folder.is_dir():
        raise UsageError(f"not_found: there is no folder {folder.name}")
    intakes = [_read(folder, row) for row in track(find_layout(folder, layout=layout, labels=labels), "reading")]
    usable = [intake for intake in intakes if not intake.refusal]
    if not usable:
        found = ", ".join(f"{count} {code}" for code, count in _reasons(intakes).items()) or "nothing that looks like a scan"
        raise ManifestError("no_rows", f"no usable scan in {folder.name}: {found}; medssl check says why")
    preprocess = preprocess or plan(usable)
    _claim(out, preprocess)
    manifest = Manifest(tuple(assign([intake.row for intake in usable], seed=seed)))
    _refuse_leaks(manifest)
    for row in track(manifest.rows, "preprocessing"):
        _store(folder, out, row, preprocess)
    report = {"scans": [intake.as_record() for intake in intakes], "counts": _counts(intakes)}
    (out / "intake.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    manifest.write(out / "manifest.csv")
    return manifest, len(intakes) - len(usable)


def _read(folder: Path, row: ManifestRow) -> Intake:
    try:
        image, lesion = read_row(folder, row)
    except ScanError as error:
        logger.warning("%s left out: %s", row.scan_id, error)
        return Intake(row, refusal=error.code)
    has_lesion = row.has_lesion if lesion is None else str(int(bool(np.any(lesion.array))))
    full = replace(row, sha256=voxels_sha256(image), has_lesion=has_lesion, modality=image.modality or row.modality, nominal=image.nominal)
    return Intake(full, image.shape, image.spacing_mm, image.affine.tolist(), warnings=row_warnings(row))


def read_row(folder: Path, row: ManifestRow) -> tuple[Volume, Volume | None]:
    """The scan of a row, its channels stacked, and its mask where it has one, both in RAS order.

    Raises:
        ScanError: Unreadable, `channel_mismatch` between channels, or `label_mismatch` between scan and mask.
    """
    channels = [read_volume(folder / part).to_ras() for part in row.image.split(";")]
    image = channels[0]
    if any(channel.shape != image.shape for channel in channels):
        raise ScanError("channel_mismatch", "the channels of the scan have different shapes")
    image = replace(image, array=np.concatenate([channel.array for channel in channels]))
    if not row.lesion:
        return image, None
    lesion = read_volume(folder / row.lesion, constant_allowed=True).to_ras()
    if lesion.shape != image.shape or not np.allclose(lesion.affine, image.affine, atol=1e-2):
        raise ScanError("label_mismatch", f"the mask has shape {lesion.shape} or place unlike the scan's {image.shape}")
    return image, lesion


def plan(intakes: Sequence[Intake]) -> Preprocess:
    """Grid and intensity from what was found: the typical spacing (or matrix, without geometry), CT in HU, all else z-scored."""
    rows = [intake.row for intake in intakes]
    ct = all(row.modality == "CT" for row in rows)
    window_hu = (-160.0, 240.0) if ct else None  # soft tissue: level 40, width 400
    intensity: Literal["window", "zscore"] = "window" if ct else "zscore"
    shapes = np.array([intake.shape for intake in intakes])
    if any(row.nominal for row in rows):
        i, j = (int(min(_LARGEST_MATRIX, round(float(np.median(shapes[:, axis]))))) for axis in (0, 1))
        return Preprocess(matrix=(i, j), intensity=intensity, window_hu=window_hu)
    i_mm, j_mm, k_mm = (round(float(value), 3) for value in np.median([intake.spacing_mm for intake in intakes], axis=0))
    keep_slices = k_mm > _ISOTROPIC * min(i_mm, j_mm)
    return Preprocess(spacing_mm=(i_mm, j_mm, 0.0 if keep_slices else k_mm), intensity=intensity, window_hu=window_hu)


def _claim(out: Path, preprocess: Preprocess) -> None:
    record = out / "preprocess.json"
    if record.is_file() and Preprocess.from_dict(json.loads(record.read_text(encoding="utf-8"))) != preprocess:
        raise ConflictError(f"{out.name} holds a store with another preprocessing; give another out folder")
    out.mkdir(parents=True, exist_ok=True)
    write_preprocess(out, preprocess)


def _refuse_leaks(manifest: Manifest) -> None:
    pairs = check(manifest.rows)
    if pairs:
        named = "; ".join(str(pair) for pair in pairs[:5])
        raise ManifestError("patient_leak", f"{len(pairs)} pairs of scans with equal voxels lie in different splits: {named}")


def _store(folder: Path, out: Path, row: ManifestRow, preprocess: Preprocess) -> None:
    target = array_path(out, row, preprocess, "image")
    if target.is_file():
        return
    image, lesion = read_row(folder, row)
    prepared = preprocess(image)
    if lesion is not None:
        write_array(array_path(out, row, preprocess, "lesion"), preprocess.lesion(lesion), prepared.affine)
    write_array(target, encode(np.asarray(prepared.array, dtype=np.float32)), prepared.affine)


def _counts(intakes: Sequence[Intake]) -> dict[str, int]:
    return dict(Counter(intake.status for intake in intakes))


def _reasons(intakes: Sequence[Intake]) -> Counter[str]:
    return Counter(intake.refusal for intake in intakes if intake.refusal)
