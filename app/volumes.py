"""The maps of a scan, read once and kept in memory."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import streamlit as st
from nibabel.filebasedimages import ImageFileError

from medssl.errors import ScanError
from medssl.volume import Affine, Array

KINDS = ("image", "probability", "mask", "lesion")


@dataclass(frozen=True, eq=False)
class ScanMaps:
    """Arrays of one scan on one grid, axes (I, J, K) in RAS+ order.

    Args:
        image: Grey values, HU for CT.
        affine: 4 x 4, voxel index to RAS+ millimetres.
        probability: 0 to 1, None where the model gives no map.
        mask: Predicted lesion voxels, None where the model gives no map.
        lesion: True lesion voxels, None where the truth is not known.
        range: Lowest and highest grey value.
        percentiles: 1st and 99th percentile of the grey values.
    """

    image: Array
    affine: Affine
    probability: Array | None
    mask: Array | None
    lesion: Array | None
    range: tuple[float, float]
    percentiles: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along I, J, K."""
        i, j, k = self.image.shape
        return i, j, k

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def map_path(folder: Path, scan_id: str, kind: str) -> Path:
    """Where a map of a known scan lies."""
    return folder / "maps" / f"{scan_id}_{kind}.nii.gz"


# A resource, not data: cache_data would unpickle the whole scan (hundreds of MB) at every step through its slices.
@st.cache_resource(max_entries=4, show_spinner="Reading the scan ...")
def load_maps(folder: Path, scan_id: str, modified: tuple[float, ...]) -> ScanMaps:
    """Read the maps of a scan; their arrays are read-only because every session shares them.

    Args:
        folder: Results folder.
        scan_id: A scan of its table.
        modified: Time of change of each of `KINDS`, 0 where absent; keys the cache.

    Raises:
        ScanError: The image cannot be read, a map lies on another grid, or a link leads out of the folder.
    """
    if not all(map_path(folder, scan_id, kind).resolve().is_relative_to(folder.resolve()) for kind in KINDS):
        raise ScanError("path_escape", "a map of this scan lies outside the folder; run `medssl score` again")
    found = {kind: read_map(map_path(folder, scan_id, kind)) for kind, time in zip(KINDS, modified, strict=True) if time}
    if "image" not in found:
        raise ScanError("not_found", "this scan has no image map; run `medssl score` again")
    image, affine = found["image"]
    if any(array.shape != image.shape for array, _ in found.values()):
        raise ScanError("size_mismatch", "the maps of this scan have different sizes; run `medssl score` again")
    # Every 7th value is enough for a display window and keeps the first view of a large scan fast.
    low, high = np.percentile(image.ravel()[:: 7 if image.size > 1_000_000 else 1].astype(np.float64), (1, 99))
    arrays = {kind: found[kind][0] if kind in found else None for kind in KINDS[1:]}
    return ScanMaps(
        image=image, affine=affine, range=(float(image.min()), float(image.max())), percentiles=(float(low), float(high)), **arrays
    )


def read_map(path: Path) -> tuple[Array, Affine]:
    """Read one map, turned to the closest RAS+ order.

    Raises:
        ScanError: `not_nifti` for a damaged file, `not_3d` for other than three axes.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ScanError("not_nifti", f"{path.name} cannot be read; run `medssl score` again") from error
    if array.ndim != 3:
        raise ScanError("not_3d", f"{path.name} has {array.ndim} axes, need 3; run `medssl score` again")
    array = np.nan_to_num(array, copy=False)
    array.setflags(write=False)
    return array, np.asarray(image.affine, dtype=np.float64)
