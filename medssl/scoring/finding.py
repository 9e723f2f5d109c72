"""What was found in one scan: the record that scoring writes and the report and the app read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medssl.errors import ManifestError

Triple = tuple[float, float, float]
Corners = tuple[Triple, Triple]


@dataclass(frozen=True)
class LesionFinding:
    """One connected component of the predicted mask.

    Args:
        centre_mm: Centre of mass, RAS+ millimetres (nominal where the scan has no geometry).
        centre_voxel: Centre of mass in voxel indices of the maps.
        volume_ml: Volume in millilitres (nominal where the scan has no geometry).
        voxels: Number of voxels.
        score: Highest probability inside, 0 to 1.
        box_voxel: Lower and upper corner of the bounding box in voxel indices of the maps; voxel i reaches from i - 0.5 to i + 0.5. None in
            findings of older versions.
        box_mm: The same two corners, RAS+ millimetres.
        class_name: The positive class that most of its voxels are of; empty where classes are not told apart.
    """

    centre_mm: Triple
    centre_voxel: Triple
    volume_ml: float
    voxels: int
    score: float
    box_voxel: Corners | None = None
    box_mm: Corners | None = None
    class_name: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of one scan.

    Args:
        scan_id: Name of the scan in the results folder, made of the digest of its series UID or of its path; no value of a header is in it.
        status: `scored` or `rejected`.
        source: Path relative to the scored folder.
        modality: DICOM modality code, empty where unknown.
        nominal: True where the scan has no physical geometry.
        shape: Voxels of the maps along I, J, K.
        spacing_mm: Voxel size of the maps.
        score: Suspicion of the scan, 0 to 1; None when rejected.
        threshold: Locked threshold of the bundle for scans.
        verdict: `positive`, `negative`, or empty when rejected.
        slice_scores: Suspicion of each slice along K, 0 to 1.
        lesions: Components of the predicted mask, largest score first.
        model_id: Identity of the bundle.
        warnings: Reason codes of intake.
        class_scores: Probability of each named class, 0 to 1; of classes that exclude each other, those of the slice with the score.
    """

    scan_id: str
    status: str
    source: str
    modality: str
    nominal: bool
    shape: tuple[int, int, int] | None
    spacing_mm: Triple | None
    score: float | None
    threshold: float | None
    verdict: str
    slice_scores: tuple[float, ...]
    lesions: tuple[LesionFinding, ...]
    model_id: str
    warnings: tuple[str, ...] = ()
    class_scores: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The finding as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> "Finding":
        """Read a finding that `to_json` wrote.

        Raises:
            ManifestError: `bad_header` where it is damaged, or not named after its scan, whose name leads to its maps.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["scan_id"] != path.stem:
                raise ValueError("a finding is not named after its scan")
            return cls._of(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                "bad_header", f"scans/{path.name} is damaged; run the command that wrote it again, which goes on"
            ) from error

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> "Finding":
        lesions = tuple(
            LesionFinding(
                centre_mm=tuple(lesion["centre_mm"]),
                centre_voxel=tuple(lesion["centre_voxel"]),
                volume_ml=lesion["volume_ml"],
                voxels=lesion["voxels"],
                score=lesion["score"],
                box_voxel=_corners(lesion.get("box_voxel")),
                box_mm=_corners(lesion.get("box_mm")),
                class_name=lesion.get("class_name", ""),
            )
            for lesion in fields["lesions"]
        )
        shape, spacing_mm = fields["shape"], fields["spacing_mm"]
        return cls(
            **{
                **fields,
                "shape": None if shape is None else tuple(shape),
                "spacing_mm": None if spacing_mm is None else tuple(spacing_mm),
                "slice_scores": tuple(fields["slice_scores"]),
                "warnings": tuple(fields["warnings"]),
                "lesions": lesions,
            }
        )

    def row(self) -> dict[str, object]:
        """The finding as a row of `results.csv`."""
        scored = self.status == "scored"
        return {
            "scan_id": self.scan_id,
            "status": self.status,
            "score": "" if self.score is None else self.score,
            "threshold": "" if self.threshold is None else self.threshold,
            "verdict": self.verdict,
            "lesion_count": len(self.lesions) if scored else "",
            "lesion_volume_ml": round(sum(lesion.volume_ml for lesion in self.lesions), 4) if scored else "",
            "model_id": self.model_id,
            "warnings": ";".join(self.warnings),
        }


def _corners(values: list[list[float]] | None) -> Corners | None:
    return None if values is None else tuple(map(tuple, values))  # type: ignore[return-value]
