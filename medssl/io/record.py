"""What the intake says about one scan."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medssl.volume import Volume

_STATUSES = ("accepted", "accepted_with_warning", "rejected")


@dataclass(frozen=True)
class ScanRecord:
    """One line of the intake report.

    Args:
        scan_id: Unique in the folder, made of the digest of the series UID or of the path; no value of a header is in it.
        source: Path below the scanned folder, with `/`; the folder for a DICOM series of several files.
        format: `dicom`, `nifti`, `png`, `jpeg`, `tiff`, another known format's name, `folder` for one with links or
            special files alone, or `unknown`.
        status: `accepted`, `accepted_with_warning` or `rejected`.
        reasons: Codes of `medssl.io.reasons`; empty when accepted.
        modality: DICOM modality code, empty where it is not known.
        shape: Voxels along the axes closest to R, A, S.
        spacing_mm: Distance between voxel centres along these axes.
        affine_ras: 4 x 4, voxel index to RAS+ millimetres.
        voxels_sha256: See `medssl.io.voxels.voxels_sha256`.
        patient: `p` and 12 hex digits made of the DICOM patient id, empty for other formats.
    """

    scan_id: str
    source: str
    format: str
    status: str
    reasons: tuple[str, ...]
    modality: str
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    affine_ras: list[list[float]] | None
    voxels_sha256: str | None
    patient: str

    def as_dict(self) -> dict[str, object]:
        """The record with the keys of the `check` report; the patient is left out."""
        return {
            "scan_id": self.scan_id,
            "source": self.source,
            "format": self.format,
            "status": self.status,
            "reasons": list(self.reasons),
            "modality": self.modality,
            "shape": None if self.shape is None else list(self.shape),
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "affine_ras": self.affine_ras,
            "voxels_sha256": self.voxels_sha256,
        }


@dataclass(frozen=True, eq=False)
class Reading:
    """A record and, unless the scan was rejected, its volume in the closest RAS orientation."""

    record: ScanRecord
    volume: Volume | None


def intake_report(records: Sequence[ScanRecord]) -> dict[str, Any]:
    """Records, their counts by status, and the ids of scans that hold the same voxels, as the `check` report has them."""
    counts = Counter(record.status for record in records)
    return {
        "scans": [record.as_dict() for record in records],
        "counts": {status: counts[status] for status in _STATUSES if counts[status]},
        "duplicates": duplicates(records),
    }


def duplicates(records: Sequence[ScanRecord]) -> list[list[str]]:
    """Groups of scan ids with equal voxels."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.voxels_sha256:
            groups[record.voxels_sha256].append(record.scan_id)
    return [group for group in groups.values() if len(group) > 1]


def summary(records: Sequence[ScanRecord]) -> list[tuple[str, str, int, str]]:
    """What was found, with which status, how often, and why: `(format and modality, status, scans, reasons)`, most frequent first."""
    kinds = Counter((f"{record.format} {record.modality}".strip(), record.status, ", ".join(record.reasons)) for record in records)
    return [(what, status, count, why) for (what, status, why), count in kinds.most_common()]
