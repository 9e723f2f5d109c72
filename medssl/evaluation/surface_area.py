"""Surface Dice and Hausdorff distance weighted by area, the definition of google-deepmind/surface-distance.

Nikolov et al., 2021, https://doi.org/10.2196/26151. A surface element lies between 2 x 2 x 2 voxels that are not all alike, and its area is
that of the triangles which marching cubes put there (of the complement where more than four of the eight belong to the mask). Distances run
between those places. The report's own numbers (`evaluation.segmentation`) count surface voxels instead, so they differ.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from medssl.evaluation.intervals import Floats

_CODES = (1 << np.arange(7, -1, -1)).reshape(2, 2, 2)


@dataclass(frozen=True, eq=False)
class SurfaceElements:
    """Distances in mm of the surface elements of one mask to the surface of another, nearest first, and their areas in mm2."""

    distances_mm: Floats
    areas_mm2: Floats

    def percentile(self, percent: float) -> float:
        """The distance within which `percent` of the area lies; infinite where there is no surface."""
        if len(self.distances_mm) == 0:
            return math.inf
        share = np.cumsum(self.areas_mm2) / self.areas_mm2.sum()
        place = int(np.searchsorted(share, percent / 100))
        return float(self.distances_mm[min(place, len(share) - 1)])


def surface_elements(a: ArrayLike, b: ArrayLike, *, spacing_mm: Sequence[float]) -> tuple[SurfaceElements, SurfaceElements]:
    """Elements of the surface of `a` with their distances to that of `b`, and back; infinite where the other mask is empty.

    Args:
        a: (I, J, K) mask; an image has K = 1, and its outline counts as long as its slice is thick.
        b: (I, J, K) mask.
        spacing_mm: Voxel size.
    """
    codes = [_codes(np.asarray(mask, dtype=bool)) for mask in (a, b)]
    surfaces = [(code != 0) & (code != 255) for code in codes]
    areas = _areas(*(float(step) for step in spacing_mm))
    found = []
    for code, own, other in zip(codes, surfaces, surfaces[::-1], strict=True):
        distance = _distances(other, spacing_mm)[own]
        order = np.argsort(distance, kind="stable")
        found.append(SurfaceElements(distance[order], areas[code[own]][order]))
    return found[0], found[1]


def surface_dice_by_area(a: ArrayLike, b: ArrayLike, *, spacing_mm: Sequence[float], tolerance_mm: float) -> float | None:
    """Share of the area of both surfaces within the tolerance of the other; None where both are empty, 0 where one is."""
    there, back = surface_elements(a, b, spacing_mm=spacing_mm)
    whole = float(there.areas_mm2.sum() + back.areas_mm2.sum())
    near = sum(float(part.areas_mm2[part.distances_mm <= tolerance_mm].sum()) for part in (there, back))
    return near / whole if whole else None


def hausdorff_by_area(a: ArrayLike, b: ArrayLike, *, spacing_mm: Sequence[float], percent: float = 95) -> float | None:
    """Larger of the two directed percentiles of distance by area; None where both masks are empty, infinite where one is."""
    there, back = surface_elements(a, b, spacing_mm=spacing_mm)
    if not len(there.distances_mm) and not len(back.distances_mm):
        return None
    return max(there.percentile(percent), back.percentile(percent))


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(I + 1, J + 1, K + 1) which of the eight voxels around each corner belong to the mask, as a number of 8 bits."""
    flat = mask.shape[2] == 1
    padded = np.pad(
        np.pad(mask, ((1, 1), (1, 1), (0, 0))), ((0, 0), (0, 0), (0, 1) if flat else (1, 1)), mode="edge" if flat else "constant"
    )
    i, j, k = (size - 1 for size in padded.shape)
    code = np.zeros((i, j, k), dtype=np.intp)
    for (x, y, z), worth in np.ndenumerate(_CODES):
        code += worth * padded[x : x + i, y : y + j, z : z + k]
    return code


def _distances(surface: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Floats:
    if not surface.any():
        return np.full(surface.shape, np.inf)
    return np.asarray(distance_transform_edt(~surface, sampling=list(spacing_mm)))


@functools.cache
def _areas(*spacing_mm: float) -> Floats:
    """(256,) area in mm2 of the surface between eight voxels, by their code."""
    from skimage.measure import marching_cubes

    found = np.zeros(256)
    for code in range(1, 255):
        drawn = code if code.bit_count() <= 4 else 255 - code  # a surface has the same area seen from either side
        corners, faces, _, _ = marching_cubes(((drawn & _CODES) > 0).astype(float), 0.5, method="lorensen")
        triangles = (corners.astype(float) * spacing_mm)[faces]
        edges = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        found[code] = np.linalg.norm(edges, axis=1).sum() / 2
    return found
