"""DICOM tags that the intake reads, and their values as text and numbers. PS3.6."""

import math
import re
import struct

from medssl.errors import ScanError
from medssl.io.dicom.elements import Elements, Parsed

Vector = tuple[float, ...]

CHARSET, IMAGE_TYPE, SOP_CLASS, SOP_UID, MODALITY = 0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060
PATIENT_NAME, PATIENT_ID, STUDY, SERIES, FRAME_OF_REFERENCE = 0x00100010, 0x00100020, 0x0020000D, 0x0020000E, 0x00200052
THICKNESS, ECHO, BETWEEN, DETECTOR_SPACING = 0x00180050, 0x00180086, 0x00180088, 0x00181164
B_VALUE, SIEMENS_B_VALUE, POSITION, ORIENTATION = 0x00189087, 0x0019100C, 0x00200032, 0x00200037
IMAGES, PET_SLICES = 0x00201002, 0x00540081
SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, SPACING = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030
ALLOCATED, STORED, HIGH_BIT, SIGNED, BURNED_IN = 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280301
INTERCEPT, SLOPE, UNITS, MODALITY_TABLE = 0x00281052, 0x00281053, 0x00281054, 0x00283000
SHARED, PER_FRAME = 0x52009229, 0x52009230
MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION = 0x00289110, 0x00209113, 0x00209116, 0x00289145
FRAME_CONTENT, STACK = 0x00209111, 0x00209056
REAL_WORLD, REAL_WORLD_INTERCEPT, REAL_WORLD_SLOPE = 0x00409096, 0x00409224, 0x00409225
DIRECTORY, REFERENCED_FILE = 0x00041220, 0x00041500
SIEMENS_MR, SIEMENS_TILES, SIEMENS_CSA, SIEMENS_CSA_IMAGE = 0x00190010, 0x0019100A, 0x00290010, 0x00291010
PIXELS, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009

WANTED = frozenset(
    {CHARSET, IMAGE_TYPE, SOP_CLASS, SOP_UID, MODALITY, PATIENT_NAME, PATIENT_ID, STUDY, SERIES, FRAME_OF_REFERENCE}
    | {THICKNESS, ECHO, BETWEEN, DETECTOR_SPACING, B_VALUE, SIEMENS_B_VALUE, POSITION, ORIENTATION, IMAGES, PET_SLICES}
    | {SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, SPACING, ALLOCATED, STORED, HIGH_BIT, SIGNED, BURNED_IN}
    | {INTERCEPT, SLOPE, UNITS, MODALITY_TABLE, SHARED, PER_FRAME, MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION}
    | {FRAME_CONTENT, STACK, REAL_WORLD, REAL_WORLD_INTERCEPT, REAL_WORLD_SLOPE, DIRECTORY, REFERENCED_FILE}
    | {SIEMENS_MR, SIEMENS_TILES, SIEMENS_CSA, SIEMENS_CSA_IMAGE}
)

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)


def text(found: Elements, tag: int) -> str:
    """A value as text, empty where it is absent."""
    value = found.get(tag, b"")
    return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else ""


def items_of(found: Elements, tag: int) -> list[Elements]:
    """Items of a sequence, none where it is absent."""
    value = found.get(tag, [])
    return value if isinstance(value, list) else []


def floats(found: Elements, tag: int, code: str) -> Vector | None:
    """Decimal strings as numbers, None where absent or empty; `code` is raised where one is no number."""
    parts = text(found, tag)
    if not parts:
        return None
    values = [part.strip() for part in parts.split("\\")]
    if not all(_NUMBER.fullmatch(value) for value in values):
        raise ScanError(code, "a decimal string is no number")
    return tuple(float(value) for value in values)


def first_float(found: Elements, tag: int, code: str) -> float | None:
    """The first of the decimal strings of a tag."""
    values = floats(found, tag, code)
    return None if values is None else values[0]


def optional_float(found: Elements, tag: int) -> float | None:
    """The same for a value that may be wrong, which then counts as absent."""
    try:
        value = first_float(found, tag, "bad_header")
    except ScanError:
        return None
    return value if value is not None and math.isfinite(value) else None


def whole(found: Elements, tag: int) -> int:
    """An integer string, 0 where it is absent or none."""
    digits = text(found, tag)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def integer(parsed: Parsed, tag: int, default: int) -> int:
    """A binary number of two bytes."""
    value = parsed.elements.get(tag)
    if not isinstance(value, bytes) or len(value) != 2:
        return default
    return int(struct.unpack((">" if parsed.big_endian else "<") + "H", value)[0])
