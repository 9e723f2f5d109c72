"""Preprocessed scans on disk: one blosc2 array a scan, keyed by the content of the scan and the preprocessing.

Values are kept as int16 with a scale, so that a crop costs a few compressed blocks and half the bytes of float32.
"""

import json
from dataclasses import asdict
from pathlib import Path

import blosc2
import numpy as np
from numpy.typing import NDArray

from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.errors import UsageError

_STEP = 1 / 2048  # resolution of stored values; z-scores up to 6 use 12,288 of 32,767 steps
_CODEC = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=1, filters=[blosc2.Filter.BITSHUFFLE])


class Store:
    """A prepared folder: `manifest.csv`, `preprocess.json` and `arrays/`.

    Args:
        folder: What `medssl prepare` wrote.

    Raises:
        UsageError: The folder is not there or not prepared.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "manifest.csv").is_file() or not (folder / "preprocess.json").is_file():
            raise UsageError(f"{folder.name} is not a prepared store (no manifest.csv and preprocess.json); run medssl prepare first")
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.csv")
        self.preprocess = Preprocess.from_dict(json.loads((folder / "preprocess.json").read_text(encoding="utf-8")))

    def image(self, row: ManifestRow) -> blosc2.NDArray:
        """The stored `(C, I, J, K)` int16 array of a scan; `decode` makes values of a part of it."""
        return blosc2.open(str(self._path(row, "image")), mode="r")

    def lesion(self, row: ManifestRow) -> blosc2.NDArray | None:
        """The `(1, I, J, K)` uint8 mask of a scan, None where it has none."""
        path = self._path(row, "lesion")
        return blosc2.open(str(path), mode="r") if path.is_file() else None

    def geometry(self, row: ManifestRow) -> NDArray[np.float64]:
        """The 4 x 4 RAS+ affine of the stored grid."""
        stored = self.image(row)
        return np.array(stored.schunk.vlmeta["affine"])

    def _path(self, row: ManifestRow, part: str) -> Path:
        return array_path(self.folder, row, self.preprocess, part)


def array_path(folder: Path, row: ManifestRow, preprocess: Preprocess, part: str) -> Path:
    """Where the array of a scan lies: the name holds the content of the scan and of the preprocessing."""
    return folder / "arrays" / f"{row.scan_id}-{row.sha256[:16]}-{preprocess.digest()[:8]}.{part}.b2nd"


def encode(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Values as stored integers, saturated at the ends of int16 (about -16 to 16)."""
    limit = np.iinfo(np.int16).max
    return np.asarray(np.clip(np.rint(values / _STEP), -limit, limit), dtype=np.int16)


def decode(stored: NDArray[np.int16]) -> NDArray[np.float32]:
    """Stored integers as float32 values."""
    return np.multiply(stored, np.float32(_STEP), dtype=np.float32)


def write_array(path: Path, array: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write one `(C, I, J, K)` array in slice-sized blocks, whole or not at all."""
    channels, i, j, k = array.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.b2nd")
    temporary.unlink(missing_ok=True)
    stored = blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(temporary),
        mode="w",
        cparams=_CODEC,
        chunks=(channels, i, j, min(k, 8)),
        blocks=(1, min(i, 256), min(j, 256), 1),
    )
    stored.schunk.vlmeta["affine"] = affine.tolist()
    temporary.replace(path)


def write_preprocess(folder: Path, preprocess: Preprocess) -> None:
    """Record the preprocessing of a store."""
    (folder / "preprocess.json").write_text(json.dumps(asdict(preprocess), indent=1), encoding="utf-8")
