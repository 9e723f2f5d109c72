"""The results folder: maps first, then the finding of a scan (its presence means done), then the table.

Every file is written whole or not at all, so that a scoring that was stopped goes on where it was.
"""

import csv
import datetime
import gzip
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medssl.cells import safe
from medssl.errors import ConflictError, ManifestError
from medssl.files import write_text, write_whole
from medssl.scoring.finding import Finding
from medssl.scoring.predictor import Result

logger = logging.getLogger(__name__)

COLUMNS = ("scan_id", "status", "score", "threshold", "verdict", "lesion_count", "lesion_volume_ml", "model_id", "warnings")
REFERENCE_COLUMNS = ("scan_id", "patient", "site", "label", "lesion", "split", "class", "age", "sex", "vendor", "field", "slice_mm")
_WHAT = ("split", "scans_sha256")  # of what is scored, in `run.json`


@dataclass(frozen=True)
class ResultsFolder:
    """A folder of findings of one model.

    Args:
        folder: Where it lies.
        model_id: The bundle all findings come from.
    """

    folder: Path
    model_id: str

    def open(self, facts: Mapping[str, object]) -> None:
        """Claim the folder for this model; `facts` become `run.json`, in which the time of the first start is kept.

        Raises:
            ConflictError: It holds findings of another model, of another split, or of scans that have changed since.
        """
        record, begun = self.folder / "run.json", {}
        if record.is_file():
            known = json.loads(record.read_text(encoding="utf-8"))
            owner = known.get("model_id")
            begun = {"started": known["started"]} if known.get("started") else {}
            if owner != self.model_id:
                raise ConflictError(f"{self.folder.name} belongs to model {owner}, not {self.model_id}; give another out folder")
            if any(name in known and known[name] != facts.get(name) for name in _WHAT):
                raise ConflictError(f"{self.folder.name} holds findings of other scans, masks or another split; give another out folder")
        write_text(record, json.dumps({"model_id": self.model_id, **facts, **begun}, indent=1))

    def has(self, scan_id: str, *, stamp: str = "") -> bool:
        """Whether a scan is done; one that was rejected, or whose finding is damaged or image map gone, is not.

        Args:
            scan_id: The scan.
            stamp: What its files are now; then one that was scored from others, or for which none were remembered, is not done either.
        """
        path = self.folder / "scans" / f"{scan_id}.json"
        if not path.is_file():
            return False
        if stamp and not self._remembers(scan_id, stamp):
            logger.info("scans/%s is not known to be of the files of now; its scan is scored again", path.name)
            return False
        try:
            scored = Finding.read(path).status == "scored"
        except ManifestError:
            logger.warning("scans/%s is damaged; its scan is scored again", path.name)
            return False
        return scored and (self.folder / "maps" / f"{scan_id}_image.nii.gz").is_file()

    def remember(self, scan_id: str, stamp: str) -> None:
        """Keep what the files of a scan were whose finding has been written."""
        write_text(self._stamp(scan_id), stamp)

    def scan_ids(self) -> set[str]:
        """The scans that have a finding."""
        return {path.stem for path in (self.folder / "scans").glob("*.json")}

    def add(self, result: Result, *, lesion: NDArray[np.uint8] | None = None, true_classes: NDArray[np.uint8] | None = None) -> None:
        """Write the maps of a scan and then its finding.

        Args:
            result: The finding and its maps.
            lesion: (I, J, K) the true mask where it is known.
            true_classes: (I, J, K) the true class of every voxel, 0 for none, where it is known.
        """
        scan_id, affine = result.finding.scan_id, result.image.affine
        self._map(scan_id, "image", _compact(result.image.array[0]), affine)
        if result.probability is not None:
            self._map(scan_id, "probability", result.probability.astype(np.float32), affine)
        if result.mask is not None:
            self._map(scan_id, "mask", result.mask, affine)
        for kind, classes in (("classes", result.classes), ("true_classes", true_classes)):
            if result.classes is not None and classes is not None:
                self._map(scan_id, kind, classes, affine)
        if lesion is not None:
            self.add_lesion(scan_id, lesion, affine)
        self.record(result.finding)

    def add_lesion(self, scan_id: str, lesion: NDArray[np.uint8], affine: NDArray[np.float64]) -> str:
        """Write the true mask (I, J, K) of a scan; returns its path in the folder, as `reference.csv` names it."""
        self._map(scan_id, "lesion", lesion, affine)
        return f"maps/{scan_id}_lesion.nii.gz"

    def record(self, finding: Finding) -> None:
        """Write a finding, where it is another than before; a rejected scan has nothing else."""
        path, text = self.folder / "scans" / f"{finding.scan_id}.json", finding.to_json()
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def findings(self) -> list[Finding]:
        """All findings, by name.

        Raises:
            ManifestError: One is damaged.
        """
        return [Finding.read(path) for path in sorted((self.folder / "scans").glob("*.json"))]

    def finish(self, facts: Mapping[str, object]) -> dict[str, int]:
        """Rebuild `results.csv` from the findings and complete `run.json`; returns how many have which status."""
        findings = self.findings()
        write_text(self.folder / "results.csv", table(COLUMNS, (finding.row() for finding in findings)))
        counts = dict(Counter(finding.status for finding in findings))
        fields = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_text(self.folder / "run.json", json.dumps({**fields, **facts, "finished": finished, "counts": counts}, indent=1))
        return counts

    def _remembers(self, scan_id: str, stamp: str) -> bool:
        path = self._stamp(scan_id)
        return path.is_file() and path.read_bytes() == stamp.encode()

    def _stamp(self, scan_id: str) -> Path:
        return self.folder / "stamps" / f"{scan_id}.txt"

    def _map(self, scan_id: str, kind: str, array: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        write_whole(self.folder / "maps" / f"{scan_id}_{kind}.nii.gz", [gzip.compress(image.to_bytes(), 1, mtime=0)])


def table(columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> str:
    """CSV text, no cell of it a formula; `medssl.cells.plain` gives the texts back."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: safe(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def _compact(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The values in int16 where that loses nothing, else float32."""
    if array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int16):
        return array.astype(np.int16)
    if array.dtype.kind in "iu" and array.min() >= -32768 and array.max() <= 32767:
        return array.astype(np.int16)
    return array.astype(np.float32)
