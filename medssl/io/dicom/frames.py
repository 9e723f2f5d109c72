"""Place, units and stack of each image of one DICOM file. PS3.3 C.7.6.2 and C.7.6.16."""

import math
import struct
from dataclasses import dataclass, replace

from medssl.errors import ScanError
from medssl.io.dicom.elements import Elements, Parsed
from medssl.io.dicom.tags import (
    FRAME_CONTENT,
    INTERCEPT,
    MEASURES,
    ORIENTATION,
    PER_FRAME,
    PLANE_ORIENTATION,
    PLANE_POSITION,
    POSITION,
    REAL_WORLD,
    REAL_WORLD_INTERCEPT,
    REAL_WORLD_SLOPE,
    SHARED,
    SLOPE,
    SOP_CLASS,
    SPACING,
    STACK,
    THICKNESS,
    TRANSFORMATION,
    UNITS,
    Vector,
    first_float,
    floats,
    items_of,
    optional_float,
    text,
)

_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


@dataclass(frozen=True)
class Frame:
    """Place and units of one image; fields are None where the file does not say.

    Args:
        index: Number of the frame in its file.
        position: ImagePositionPatient in mm (LPS).
        orientation: ImageOrientationPatient, row cosines then column cosines.
        spacing: PixelSpacing in mm: between rows, between columns.
        units: RescaleType.
        stack: StackID, empty where frames are not told apart by it.
    """

    index: int
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    thickness_mm: float | None
    slope: float | None
    intercept: float | None
    units: str
    stack: str = ""


def frames(parsed: Parsed, count: int) -> tuple[Frame, ...]:
    """All frames of a file, from its top level or from its functional groups.

    Raises:
        ScanError: `bad_header`, `bad_rescale`, `bad_pixelspacing`, `bad_position`, `bad_orientation`.
    """
    found = parsed.elements
    if PER_FRAME not in found:
        return tuple(_frame(found, index) for index in range(count))
    items, shared = items_of(found, PER_FRAME), items_of(found, SHARED)
    if len(items) != count:
        raise ScanError("bad_header", f"{count} frames have {len(items)} descriptions")
    base = shared[0] if shared else {}
    flat = [_flat(found, base, item) for item in items]
    if text(found, SOP_CLASS) == _PARAMETRIC_MAP:
        return tuple(_mapped(_frame(each, index), each, parsed) for index, each in enumerate(flat))
    return tuple(_frame(each, index) for index, each in enumerate(flat))


def _flat(found: Elements, shared: Elements, item: Elements) -> Elements:
    merged = dict(found)
    for macro in (MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION, FRAME_CONTENT):
        for group in (shared, item):
            for inner in items_of(group, macro)[:1]:
                merged.update(inner)
    merged[REAL_WORLD] = items_of(item, REAL_WORLD) or items_of(shared, REAL_WORLD)
    return merged


def _mapped(frame: Frame, found: Elements, parsed: Parsed) -> Frame:
    """A frame of a parametric map with the slope and intercept of its one real world mapping. PS3.3 C.7.6.16.2.11."""
    mappings = items_of(found, REAL_WORLD)
    if not mappings or frame.slope is not None:
        return frame
    slope, intercept = (_double(mappings[0], tag, parsed) for tag in (REAL_WORLD_SLOPE, REAL_WORLD_INTERCEPT))
    if len(mappings) > 1 or slope is None or intercept is None:
        raise ScanError("bad_rescale", "the frame has several real world mappings, or one that is no line")
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise ScanError("bad_rescale", "the slope of a real world mapping is zero, or slope or intercept are not finite")
    return replace(frame, slope=slope, intercept=intercept)


def _double(found: Elements, tag: int, parsed: Parsed) -> float | None:
    value = found.get(tag)
    if not isinstance(value, bytes) or len(value) != 8:
        return None
    return float(struct.unpack(">d" if parsed.big_endian else "<d", value)[0])


def _frame(found: Elements, index: int) -> Frame:
    slope, intercept = (first_float(found, tag, "bad_rescale") for tag in (SLOPE, INTERCEPT))
    if slope == 0 or any(value is not None and not math.isfinite(value) for value in (slope, intercept)):
        raise ScanError("bad_rescale", "the rescale slope is zero, or slope or intercept are not finite")
    spacing = floats(found, SPACING, "bad_pixelspacing")
    if spacing is not None and (len(spacing) != 2 or not all(1e-6 <= value <= 200 for value in spacing)):
        raise ScanError("bad_pixelspacing", "PixelSpacing is not two plausible positive numbers")
    position = position_of(found)
    thickness = optional_float(found, THICKNESS)  # never used where there are positions
    orientation = _orientation(found)
    return Frame(index, position, orientation, spacing, thickness, slope, intercept, text(found, UNITS), text(found, STACK))


def position_of(found: Elements) -> Vector | None:
    """ImagePositionPatient in mm (LPS), None where it is absent.

    Raises:
        ScanError: `bad_position`.
    """
    position = floats(found, POSITION, "bad_position")
    if position is not None and (len(position) != 3 or not all(map(math.isfinite, position))):
        raise ScanError("bad_position", "ImagePositionPatient is not three finite numbers")
    return position


def _orientation(found: Elements) -> Vector | None:
    cosines = floats(found, ORIENTATION, "bad_orientation")
    if cosines is None:
        return None
    if len(cosines) != 6 or not all(map(math.isfinite, cosines)):
        raise ScanError("bad_orientation", "ImageOrientationPatient is not six finite numbers")
    row, column = cosines[:3], cosines[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if not all(abs(length - 1) < 0.01 for length in lengths):
        raise ScanError("bad_orientation", "the rows or columns have no unit direction")
    if abs(sum(a * b for a, b in zip(row, column, strict=True))) > 5e-3:
        raise ScanError("bad_orientation", "rows and columns are not orthogonal")
    return tuple(value / lengths[0] for value in row) + tuple(value / lengths[1] for value in column)
