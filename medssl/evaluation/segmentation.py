"""Agreement of a predicted mask with the true one, scan by scan.

Surfaces are the voxels of a mask that an erosion by the 6 neighbours (4 in 2D) removes; distances run between voxel centres in
millimetres, not weighted by area. HD95 is the larger of the two directed 95th percentiles; surface Dice is the share of both surfaces
within a tolerance of the other one. These are MONAI's definitions; google-deepmind/surface-distance weighs by area and gives other numbers,
which `evaluation.surface_area` computes.

Both masks empty: excluded and counted. One empty: the worst value (Dice 0, surface Dice 0, HD95 the diagonal of the scan), never dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, generate_binary_structure

from medssl.evaluation.few import FEW, no_interval
from medssl.evaluation.intervals import BOOTSTRAP, Floats, index_patients, patient_weights, student_interval
from medssl.evaluation.metric import Interval

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Status = Literal["compared", "both_empty", "prediction_empty", "truth_empty"]

TOLERANCE_MM = 2.0
SHARE: Interval = (0.0, 1.0)
BOUNDS: dict[str, Interval] = {"hd95_mm": (0.0, math.inf), "volume_error_ml": (-math.inf, math.inf)}
STUDENT = "Student's t over patients"
DEFINITIONS = {
    "dice": "2 |A and B| / (|A| + |B|); both empty: excluded, one empty: 0",
    "dice_with_lesion": "Dice of the scans that truly have a lesion; nothing found: 0",
    "hd95_mm": "larger of the two directed 95th percentiles between surface voxel centres (as MONAI); one empty: diagonal of the scan",
    "surface_dice": f"share of surface voxels within {TOLERANCE_MM:g} mm of the other surface, not weighted by area; one empty: 0",
    "volume_error_ml": "predicted minus true volume",
}


@dataclass(frozen=True)
class Overlap:
    """How a predicted mask agrees with the true one; numbers are None where both are empty.

    Args:
        status: Which of the masks are empty.
        dice: 0 to 1.
        hd95_mm: Millimetres.
        surface_dice: 0 to 1, at `TOLERANCE_MM`.
        predicted_ml: Volume of the prediction.
        true_ml: Volume of the truth.
    """

    status: Status
    dice: float | None
    hd95_mm: float | None
    surface_dice: float | None
    predicted_ml: float
    true_ml: float

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus true volume."""
        return self.predicted_ml - self.true_ml


def dice(prediction: ArrayLike, truth: ArrayLike) -> float | None:
    """Dice coefficient of two masks; None where both are empty."""
    a, b = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else None


def iou(prediction: ArrayLike, truth: ArrayLike) -> float | None:
    """Intersection over union of two masks; None where both are empty."""
    a, b = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    total = int((a | b).sum())
    return int((a & b).sum()) / total if total else None


def compare(prediction: ArrayLike, truth: ArrayLike, *, spacing_mm: Spacing) -> Overlap:
    """Compare two masks (I, J, K) on one grid; a 2D image has K = 1."""
    a, b = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    voxel_ml = math.prod(spacing_mm) / 1000
    volumes = (int(a.sum()) * voxel_ml, int(b.sum()) * voxel_ml)
    if not a.any() and not b.any():
        return Overlap("both_empty", None, None, None, *volumes)
    if not a.any() or not b.any():
        diagonal = math.dist((0, 0, 0), [(size - 1) * step for size, step in zip(a.shape, spacing_mm, strict=True)])
        return Overlap("truth_empty" if a.any() else "prediction_empty", 0.0, diagonal, 0.0, *volumes)
    there, back = surface_distances(a, b, spacing_mm=spacing_mm)
    hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    return Overlap("compared", dice(a, b), hd95, surface_dice(there, back), *volumes)


def surface_distances(a: Mask, b: Mask, *, spacing_mm: Spacing) -> tuple[Floats, Floats]:
    """Distances in mm of the surface voxels of `a` to the surface of `b`, and back; both masks hold something."""
    box = find_objects((a | b).astype(np.uint8))[0]
    axes = [axis for axis, size in enumerate(a.shape) if size > 1] or [0]
    flat = tuple(axis for axis in range(a.ndim) if axis not in axes)
    surface_a, surface_b = (_surface(np.squeeze(mask[box], axis=flat)) for mask in (a, b))
    sampling = [spacing_mm[axis] for axis in axes]
    to_a, to_b = (np.asarray(distance_transform_edt(~surface, sampling=sampling)) for surface in (surface_a, surface_b))
    return to_b[surface_a], to_a[surface_b]


def surface_dice(there: Floats, back: Floats, *, tolerance_mm: float = TOLERANCE_MM) -> float:
    """Share of both surfaces that lies within the tolerance of the other one."""
    near = int((there <= tolerance_mm).sum()) + int((back <= tolerance_mm).sum())
    return near / (len(there) + len(back))


def mean_surface_distance(there: Floats, back: Floats, *, pooled: bool) -> float:
    """Mean distance of the two surfaces in mm.

    Args:
        there: Distances of one surface to the other, one of a voxel.
        back: Those of the other.
        pooled: Over the voxels of both surfaces together (ASSD, as MONAI), or the mean of both directed means (MASD, as MetricsReloaded).
    """
    return float(np.concatenate([there, back]).mean()) if pooled else float((there.mean() + back.mean()) / 2)


def _surface(mask: Mask) -> Mask:
    # Outside the box counts as background, so a mask that touches the border of the scan has a surface there.
    return mask & ~binary_erosion(mask, generate_binary_structure(mask.ndim, 1), border_value=0)


def summarise(values: Sequence[float], patients: ArrayLike, *, bounds: Interval = SHARE) -> dict[str, object]:
    """Mean, median and quartiles of one number per scan; the mean with the bootstrap over patients, of 2 to 9 patients with Student's t.

    Args:
        values: (N,) one number per scan.
        patients: (N,) whose scan it is.
        bounds: The least and the largest value that the number can have.
    """
    value = np.asarray(values, dtype=float)
    if len(value) == 0:
        note = "cannot be measured: no scan with a true and a predicted mask"
        return {"mean": None, "median": None, "iqr": [None, None], "ci95": [None, None], "method": "none", "n": 0, "note": note}
    interval, count = mean_interval(value, patients)
    quartiles = np.percentile(value, (25, 75)).tolist()
    record = {"mean": float(value.mean()), "median": float(np.median(value)), "iqr": quartiles, "n": len(value), "n_patients": count}
    if interval is not None:
        return record | {"ci95": list(interval), "method": BOOTSTRAP}
    interval = student_interval(*_by_patient(value, patients), bounds=bounds) if count < FEW else None
    if interval is not None:
        return record | {"ci95": list(interval), "method": STUDENT, "note": f"of {count} patients, by Student's t"}
    note = no_interval(count) if count == 1 else "no interval: all values alike"
    return record | {"ci95": [None, None], "method": "none", "note": note}


def mean_interval(values: Floats, patients: ArrayLike) -> tuple[Interval | None, int]:
    """Interval of a mean over scans when whole patients are drawn, None of fewer than 10, and the number of patients."""
    sums, sizes = _by_patient(values, patients)
    if len(sums) < FEW:
        return None, len(sums)
    samples = np.concatenate([(block @ sums) / (block @ sizes) for block in patient_weights(len(sums))])
    if np.ptp(samples) < 1e-12:
        return None, len(sums)
    low, high = np.percentile(samples, (2.5, 97.5))
    return (float(low), float(high)), len(sums)


def _by_patient(values: Floats, patients: ArrayLike) -> tuple[Floats, Floats]:
    """(P,) sums of the values of each patient, and (P,) how many there are."""
    index, count = index_patients(patients)
    sums, sizes = (np.bincount(index, weights=part, minlength=count).astype(np.float64) for part in (values, np.ones(len(index))))
    return sums, sizes
