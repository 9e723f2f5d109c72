"""A scan in memory: voxels and their place in the patient, kept together.

Axes are `(C, I, J, K)`; the affine maps voxel indices (i, j, k) to millimetres in RAS+ (right, anterior, superior), as in NIfTI.
"""

from dataclasses import dataclass, replace

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from medssl.errors import ScanError

Array = NDArray[np.generic]
Affine = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their geometry.

    Args:
        array: `(C, I, J, K)` values, in HU for CT; a 2D image has K = 1.
        affine: 4 x 4, voxel index to RAS+ millimetres.
        modality: DICOM modality code (`MR`, `CT`, `US`, ...), empty where it is not known.
        nominal: The source gives no physical geometry: spacing and affine are placeholders, volumes mean voxels.

    Raises:
        ScanError: `not_3d` unless the array has four axes; `bad_orientation` when the affine is singular or not finite.
    """

    array: Array
    affine: Affine
    modality: str = ""
    nominal: bool = False

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ScanError("not_3d", f"need axes (C, I, J, K), found {self.array.ndim} axes")
        matrix = np.asarray(self.affine, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise ScanError("bad_orientation", "the affine is not an invertible 4 x 4 matrix")
        object.__setattr__(self, "affine", matrix)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along I, J, K."""
        return self.array.shape[1], self.array.shape[2], self.array.shape[3]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along I, J, K, in millimetres."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_ras(self) -> "Volume":
        """The same scan with its axes flipped and permuted to the closest RAS+ order, as a view; no voxel value changes."""
        current = io_orientation(self.affine)
        turn = ornt_transform(current, axcodes2ornt(("R", "A", "S")))
        turned = np.moveaxis(apply_orientation(np.moveaxis(self.array, 0, -1), turn), -1, 0)
        return replace(self, array=turned, affine=self.affine @ inv_ornt_aff(turn, self.shape))
