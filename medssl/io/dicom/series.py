"""Slices of one DICOM series to a stack with geometry, or a named refusal. Trust rules 2 to 5 and 9.

Slices are ordered by the projection of ImagePositionPatient on the normal of ImageOrientationPatient (PS3.3 C.7.6.2); instance
numbers and file names are ignored.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.dicom.frames import Frame
from medssl.io.dicom.header import DicomFile
from medssl.io.dicom.pixels import pixel_bytes_sha256
from medssl.io.dicom.tags import Vector

Points = NDArray[np.float64]

_SAME_PLACE_MM = 1e-3
_GAP_MM, _GAP_PART = 0.01, 0.01
_WHOLE_STEP = 0.05  # a step this close to a multiple of the median is a missing slice
_COSINE_TOLERANCE = 5e-4
_TILT_DEGREES = 0.1
_SHIFT_MM, _SHIFT_PART = 0.02, 0.05  # in-plane shift that is a fault: millimetres, or part of a pixel
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_STEP_MM = 200.0


class SeriesError(ScanError):
    """A series that cannot be stacked, with further codes that are true of it as well."""

    def __init__(self, code: str, message: str, also: tuple[str, ...] = ()) -> None:
        super().__init__(code, message)
        self.also = also


@dataclass(frozen=True)
class Slice:
    """One image of a series: a frame and the file that holds it."""

    file: DicomFile
    frame: Frame


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order along the normal, with the affine (column, row, slice) to RAS+ millimetres."""

    slices: tuple[Slice, ...]
    affine: Points
    warnings: tuple[str, ...]


def whole_groups(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """One list, or one per echo and b-value where each of them covers the very same positions."""
    groups: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        groups.setdefault(file.group, []).append(file)
    places = [Counter(_rounded(file.frames[0].position) for file in group) for group in groups.values()]
    if len(groups) > 1 and all(place == places[0] for place in places):
        return list(groups.values())
    return [list(files)]


def _rounded(position: Vector | None) -> Hashable:
    return None if position is None else tuple(round(value, 3) for value in position)


def stack(files: Sequence[DicomFile]) -> Stack:
    """Order, check and place the slices of one series.

    Raises:
        ScanError: `patient_mismatch`, `not_a_volume`, `size_varies`, `units_vary`, `frame_of_reference_varies`, `spacing_varies`,
            `orientation_varies`, `no_geometry`, `conflicting_slices`, `too_few_slices`, `missing_slice`, `nonuniform_spacing`,
            `misaligned_slice`, `gantry_tilt`.
    """
    if len({file.patient for file in files}) > 1:
        raise ScanError("patient_mismatch", "one series carries two patients")
    images = [file for file in files if not file.localizer]
    if not images:
        raise ScanError("not_a_volume", "the series holds localizers only")
    warnings = ["localizer_dropped"] if len(images) < len(files) else []
    unique = _without_copies(images)
    warnings += ["duplicate_dropped"] if len(unique) < len(images) else []
    slices = [Slice(file, frame) for file in unique for frame in file.frames]
    _check_one_stack(slices)
    _check_uniform(slices)
    ordered, affine, found = _place(slices)
    declared = max(file.declared_images for file in images)
    warnings += ["fewer_images_than_declared"] if declared > len(files) and not images[0].multiframe else []
    return Stack(tuple(ordered), affine, tuple(warnings) + found + _tag_warnings(ordered, affine))


def _without_copies(files: Sequence[DicomFile]) -> list[DicomFile]:
    by_uid: dict[str, list[DicomFile]] = {}
    for number, file in enumerate(files):
        by_uid.setdefault(file.sop_uid or f"#{number}", []).append(file)
    for copies in by_uid.values():
        if len(copies) > 1 and len({pixel_bytes_sha256(file) for file in copies}) > 1:
            raise ScanError("conflicting_slices", "one SOP instance UID stands on two different images")
    return [copies[0] for copies in by_uid.values()]


def _check_one_stack(slices: Sequence[Slice]) -> None:
    """Frames of one file that are several stacks, or one stack several times."""
    if not slices[0].file.multiframe:
        return
    if len({each.frame.stack for each in slices} - {""}) > 1:
        raise ScanError("not_a_volume", "the frames of the file belong to several stacks")
    times = set(Counter(_rounded(each.frame.position) for each in slices).values())
    if len(times) == 1 and max(times) > 1:
        raise SeriesError("not_3d", f"each position of the file has {max(times)} frames", ("conflicting_slices",))


def _check_uniform(slices: Sequence[Slice]) -> None:
    first = slices[0]
    if any((each.file.rows, each.file.columns) != (first.file.rows, first.file.columns) for each in slices):
        raise ScanError("size_varies", "Rows or Columns change inside the series")
    if len({(each.frame.units, each.frame.slope is None, each.frame.intercept is None) for each in slices}) > 1:
        raise ScanError("units_vary", "the rescale units change inside the series")
    if len({(each.file.modality, each.file.photometric) for each in slices}) > 1:
        raise ScanError("units_vary", "the modality or the photometric interpretation changes inside the series")
    if any(None in (each.frame.position, each.frame.orientation, each.frame.spacing) for each in slices):
        raise ScanError("no_geometry", "position, orientation or pixel spacing is absent")
    if len({each.file.frame_of_reference for each in slices}) > 1:
        raise ScanError("frame_of_reference_varies", "the frame of reference changes inside the series")
    spacings = _rows(each.frame.spacing for each in slices)
    if np.ptp(spacings / spacings[0], axis=0).max() > 1e-3:
        raise ScanError("spacing_varies", "PixelSpacing changes inside the series")
    orientations = _rows(each.frame.orientation for each in slices)
    if np.abs(orientations - np.median(orientations, axis=0)).max() > _COSINE_TOLERANCE:
        raise ScanError("orientation_varies", "the orientation changes inside the series")


def _rows(vectors: Iterable[Vector | None]) -> Points:
    return np.array(list(vectors), dtype=np.float64)


def _place(slices: Sequence[Slice]) -> tuple[list[Slice], Points, tuple[str, ...]]:
    cosines = np.median(_rows(each.frame.orientation for each in slices), axis=0)
    row, column = cosines[:3], cosines[3:]
    axes = np.stack([row, column, np.cross(row, column)])
    positions = _rows(each.frame.position for each in slices)
    places = positions @ axes.T  # along rows, along columns, along the normal
    order = np.argsort(places[:, 2], kind="stable")
    ordered, positions, places = [slices[index] for index in order], positions[order], places[order]
    spacing = slices[0].frame.spacing or ()
    found: tuple[str, ...] = ("single_slice",)
    if len(slices) == 1:
        step = axes[2] * _thickness(slices[0])
    else:
        found = _check_steps(places, min(spacing))
        numbers = np.arange(len(slices)) - (len(slices) - 1) / 2
        step = numbers @ positions / (numbers @ numbers)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacing[1], column * spacing[0]
    # the least squares line through all positions, so that the rounding of one does not shift the scan
    affine[:3, 2], affine[:3, 3] = step, positions.mean(axis=0) - step * (len(slices) - 1) / 2
    return ordered, _LPS_TO_RAS @ affine, found


def _thickness(image: Slice) -> float:
    for value in (image.frame.thickness_mm, image.file.between_mm):
        if value is not None and 0 < abs(value) <= _MAX_STEP_MM:
            return abs(value)
    return 1.0


def _check_steps(places: Points, pixel_mm: float) -> tuple[str, ...]:
    steps = np.diff(places[:, 2])
    if steps.min() < _SAME_PLACE_MM:
        raise ScanError("conflicting_slices", "two different images have one position along the normal")
    if len(places) == 2:
        raise ScanError("too_few_slices", "found two slices, a volume needs three or more")
    median = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower one: a gap is a longer step
    lean = np.median(np.diff(places[:, :2], axis=0) / steps[:, None], axis=0)
    tilt = np.degrees(np.arctan(np.hypot(*lean)))
    if tilt > 60:
        raise ScanError("not_a_volume", "the slices lie beside one another rather than on one another")
    tilted = ("gantry_tilt",) if tilt > _TILT_DEGREES else ()
    _check_gaps(steps, median, tilted)
    if median > _MAX_STEP_MM:
        raise ScanError("bad_position", "the slices are implausibly far apart")
    shift = places[:, :2] - lean * places[:, 2:]
    if np.abs(shift - np.median(shift, axis=0)).max() > max(_SHIFT_MM, _SHIFT_PART * pixel_mm):
        raise SeriesError("misaligned_slice", "a slice is shifted in its own plane, or the tilt varies", tilted)
    return tilted


def _check_gaps(steps: Points, median: float, tilted: tuple[str, ...]) -> None:
    off = steps[np.abs(steps - median) > max(_GAP_MM, _GAP_PART * median)] / median
    if not len(off):
        return
    whole = (np.round(off) >= 2) & (np.abs(off - np.round(off)) <= _WHOLE_STEP)
    worst = f"steps of {steps.min():.2f} to {steps.max():.2f} mm, median {median:.2f}"
    if whole.all():
        raise SeriesError("missing_slice", f"{len(off)} gaps of whole steps: {worst}", tilted)
    raise SeriesError("nonuniform_spacing", worst, tilted)


def _tag_warnings(slices: Sequence[Slice], affine: Points) -> tuple[str, ...]:
    found = []
    step = float(abs(np.linalg.det(affine[:3, :3])) / np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))
    tags = [abs(each.file.between_mm) for each in slices if each.file.between_mm is not None]
    if len(slices) > 1 and any(abs(tag - step) > max(_GAP_MM, _GAP_PART * step) for tag in tags):
        found.append("spacing_tag_disagrees")
    thicknesses = [each.frame.thickness_mm for each in slices if each.frame.thickness_mm is not None]
    if thicknesses and max(thicknesses) - min(thicknesses) > _GAP_MM:
        found.append("thickness_varies")
    if slices[0].file.modality == "CT" and (slices[0].frame.slope is None or slices[0].frame.intercept is None):
        found.append("no_rescale")
    return tuple(found)
