"""Slices that lean (gantry tilt) onto a grid with right angles. Trust rule 9.

The slices stay where they are; each is moved within its own plane, so that voxels of one index lie on one line along the normal. Nothing
is interpolated between slices, and the grid grows by as much as the slices lean.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.io.voxels import RawScan
from medssl.volume import Array

_LEANING = frozenset({"gantry_tilt", "sheared_affine"})
_RIGHT_ANGLE = 2e-3  # cosine between the axes of a slice
_WHOLE = 1e-6  # voxels, within which a place is a whole one
_MOST_CLASSES = 16  # a mask of more values numbers its lesions, or is no drawing at all, as in `medssl.data.masks`

Float = NDArray[np.float32]


def straightened(scan: RawScan, *, mask: bool = False) -> RawScan:
    """A scan on a grid whose third axis is along the normal of its slices, with a warning; any other scan as it is.

    Values are linear between voxels of a slice, float32, and the lowest value of the scan where there was none.

    Args:
        scan: What a format gave; its third axis counts the slices.
        mask: The scan is a mask, and keeps its values: a voxel is lesion (above 0) where half of it is, and of the class that has most
            of it. A mask of more than 16 classes becomes 0 and 1.
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
    moved = _moved_classes(scan.values, lean, low) if mask else _moved(scan.values, lean, low, fill=_lowest(scan.values))
    warnings = tuple(dict.fromkeys("tilt_resampled" if code in _LEANING else code for code in scan.warnings))
    return replace(scan, values=moved, affine=affine, warnings=warnings)


def _lowest(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else 0.0


def _moved_classes(mask: NDArray[Any], lean: NDArray[np.float64], low: NDArray[np.int_]) -> Array:
    """A mask, each class moved on its own: what is lesion by half is of the class with the largest share."""
    classes = np.unique(mask[mask > 0])
    if not 0 < len(classes) <= _MOST_CLASSES:
        mask, classes = np.asarray(mask > 0, dtype=np.uint8), np.ones(1, np.uint8)
    shares = (_moved(mask == value, lean, low, fill=0) for value in classes)
    lesion = largest = next(shares)
    moved = np.full(largest.shape, classes[0])
    for value, share in zip(classes[1:], shares, strict=True):
        moved[share > largest] = value
        lesion, largest = lesion + share, np.maximum(largest, share)
    moved[lesion < 0.5] = 0
    return moved


def _moved(values: NDArray[Any], lean: NDArray[np.float64], low: NDArray[np.int_], *, fill: float) -> Float:
    """Each slice moved by `lean` voxels more than the one before, on a grid that begins at voxel `low`, with `fill` around them."""
    values = np.asarray(values, dtype=np.float32)
    slices = values.shape[2]
    high = np.ceil(np.maximum(0.0, lean * (slices - 1)) - _WHOLE).astype(int)
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
