"""Lesions as boxes: from the grid of the network to the grid of the scan, and to millimetres."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from medssl.models.detection import Box
from medssl.scoring.finding import Corners, LesionFinding, Triple
from medssl.volume import Volume


class BoxFields(TypedDict):
    """The fields of a lesion that hold its box."""

    box_voxel: Corners
    box_mm: Corners


def corners(lower: Sequence[float], upper: Sequence[float], scan: Volume) -> BoxFields:
    """The box of a lesion between two corners in voxel indices of a scan."""
    ends = np.array(lower, dtype=float), np.array(upper, dtype=float)
    first, last = (scan.affine[:3, :3] @ end + scan.affine[:3, 3] for end in ends)
    return BoxFields(box_voxel=(_triple(ends[0]), _triple(ends[1])), box_mm=(_triple(first), _triple(last)))


def lesion_of(box: Box, prepared: Volume, scan: Volume) -> LesionFinding:
    """A detected box as a lesion of the scan; its volume is that of the ellipsoid in the box, for there is no mask.

    Args:
        box: In voxels of the prepared scan.
        prepared: The scan as the network saw it.
        scan: In RAS order.
    """
    turn = np.linalg.inv(scan.affine) @ prepared.affine
    lower, upper = (turn[:3, :3] @ edge + turn[:3, 3] for edge in (box.lower, box.upper))
    centre = (lower + upper) / 2
    voxels = max(1, round(math.pi / 6 * float(np.prod(upper - lower))))
    return LesionFinding(
        centre_mm=_triple(scan.affine[:3, :3] @ centre + scan.affine[:3, 3]),
        centre_voxel=_triple(centre),
        volume_ml=voxels * scan.voxel_volume_ml,
        voxels=voxels,
        score=box.score,
        **corners(lower.tolist(), upper.tolist(), scan),
    )


def _triple(values: NDArray[np.float64]) -> Triple:
    x, y, z = (round(float(value), 3) for value in values)
    return x, y, z
