"""Slices that lean (gantry tilt) onto a grid with right angles. Trust rule 9.

The slices stay where they are; each is moved within its own plane, so that voxels of one index lie on one line along the normal. Nothing
is interpolated between slices, and the grid grows by as much as the slices lean.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medssl.io.voxels import RawScan

_LEANING = frozenset({"gantry_tilt", "sheared_affine"})
_RIGHT_ANGLE = 2e-3  # cosine between the axes of a slice
_WHOLE = 1e-6  # voxels, within which a place is a whole one

Float = NDArray[np.float32]


def straightened(scan: RawScan, *, mask: bool = False) -> RawScan:
    """A scan on a grid whose third axis is along the normal of its slices, with a warning; any other scan as it is.

    Values are linear between voxels of a slice, float32, and the lowest value of the scan where there was none.

    Args:
        scan: What a format gave; its third axis counts the slices.
        mask: The scan is a mask: all above 0 counts as 1 and the result is 0 or 1.
    """
    if not _LEANING & set(scan.warnings):
        return scan
    lengths = np.linalg.norm(scan.affine[:3, :3], axis=0)
    i, j = scan.affine[:3, 0] / lengths[0], scan.affine[:3, 1] / lengths[1]
    if abs(i @ j) > _RIGHT_ANGLE:
        return scan  # the slices themselves are askew
    step = scan.affine[:3, 2]
    lean = np.array([i @ step, j @ step]) / lengths[:2]  # voxels a slice
    low = np.floor(np.minimum(0.0, lean * (scan.values.shape[2] - 1)) + _WHOLE).astype(int)
    affine = scan.affine.copy()
    normal = np.cross(i, j)
    affine[:3, 2] = normal * (normal @ step)
    affine[:3, 3] += scan.affine[:3, :2] @ low
    values = np.asarray(np.greater(scan.values, 0) if mask else scan.values, dtype=np.float32)
    moved = _moved(values, lean, low)
    warnings = tuple(dict.fromkeys("tilt_resampled" if code in _LEANING else code for code in scan.warnings))
    return replace(scan, values=(moved >= 0.5).astype(np.uint8) if mask else moved, affine=affine, warnings=warnings)


def _moved(values: Float, lean: NDArray[np.float64], low: NDArray[np.int_]) -> Float:
    """Each slice moved by `lean` voxels more than the one before, on a grid that begins at voxel `low`."""
    slices = values.shape[2]
    high = np.ceil(np.maximum(0.0, lean * (slices - 1)) - _WHOLE).astype(int)
    finite = values[np.isfinite(values)]
    fill = float(finite.min()) if finite.size else 0.0
    size = values.shape[:2] + high - low
    moved = np.empty((*size, slices), np.float32)
    for k in range(slices):
        along_i = _along(values[:, :, k], np.arange(size[0]) + low[0] - k * lean[0], fill)
        moved[:, :, k] = _along(along_i.T, np.arange(size[1]) + low[1] - k * lean[1], fill).T
    return moved


def _along(plane: Float, places: NDArray[np.float64], fill: float) -> Float:
    """The rows of a plane at fractional places, linear, `fill` outside."""
    last = len(plane) - 1
    outside = (places < -_WHOLE) | (places > last + _WHOLE)
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(int), max(0, last - 1))
    part = (places - before)[:, None].astype(np.float32)
    rows = plane[before] * (1 - part) + plane[np.minimum(before + 1, last)] * part
    rows[outside] = fill
    return np.asarray(rows, dtype=np.float32)
