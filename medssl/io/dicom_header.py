"""One DICOM file's header, checked: what a slice must say before its pixels are read. PS3.3 C.7.6, trust rules 4 to 9."""

import hashlib
import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.charset import python_encoding

from medssl.errors import ScanError
from medssl.io.dicom_elements import Elements, MoreNeeded, Parsed, PixelElement, parse
from medssl.io.files import HEAD_BYTES, FileStamp, read_file
from medssl.io.voxels import MAX_VOXEL_BYTES

Vector = tuple[float, ...]

CHARSET, IMAGE_TYPE, SOP_CLASS, SOP_UID, MODALITY = 0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060
PATIENT_NAME, PATIENT_ID, STUDY, SERIES, FRAME_OF_REFERENCE = 0x00100010, 0x00100020, 0x0020000D, 0x0020000E, 0x00200052
THICKNESS, ECHO, BETWEEN, DETECTOR_SPACING = 0x00180050, 0x00180086, 0x00180088, 0x00181164
B_VALUE, SIEMENS_B_VALUE, POSITION, ORIENTATION = 0x00189087, 0x0019100C, 0x00200032, 0x00200037
IMAGES, PET_SLICES = 0x00201002, 0x00540081
SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, SPACING = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030
ALLOCATED, STORED, HIGH_BIT, SIGNED, BURNED_IN = 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280301
INTERCEPT, SLOPE, UNITS = 0x00281052, 0x00281053, 0x00281054
SHARED, PER_FRAME = 0x52009229, 0x52009230
MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION = 0x00289110, 0x00209113, 0x00209116, 0x00289145
DIRECTORY, REFERENCED_FILE = 0x00041220, 0x00041500

WANTED = frozenset(
    {CHARSET, IMAGE_TYPE, SOP_CLASS, SOP_UID, MODALITY, PATIENT_NAME, PATIENT_ID, STUDY, SERIES, FRAME_OF_REFERENCE}
    | {THICKNESS, ECHO, BETWEEN, DETECTOR_SPACING, B_VALUE, SIEMENS_B_VALUE, POSITION, ORIENTATION, IMAGES, PET_SLICES}
    | {SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, SPACING, ALLOCATED, STORED, HIGH_BIT, SIGNED, BURNED_IN}
    | {INTERCEPT, SLOPE, UNITS, SHARED, PER_FRAME, MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION}
    | {DIRECTORY, REFERENCED_FILE}
)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NOT_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.481.",  # radiotherapy
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
)
_RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_MAX_FRAME_BYTES = 1 << 30
_MAX_FRAMES = 1 << 20


@dataclass(frozen=True)
class Frame:
    """Place and units of one image; fields are None where the file does not say.

    Args:
        index: Number of the frame in its file.
        position: ImagePositionPatient in mm (LPS).
        orientation: ImageOrientationPatient, row cosines then column cosines.
        spacing: PixelSpacing in mm: between rows, between columns.
        units: RescaleType.
    """

    index: int
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    thickness_mm: float | None
    slope: float | None
    intercept: float | None
    units: str


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of one readable DICOM image file. `patient` is a digest, never the tag's value."""

    path: Path
    stamp: FileStamp
    syntax: str
    big_endian: bool
    pixels: PixelElement
    series: str
    study: str
    patient: str
    sop_uid: str
    modality: str
    frame_of_reference: str
    group: tuple[str, str]  # echo, b-value
    localizer: bool
    projection: bool
    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    between_mm: float | None
    declared_images: int
    frames: tuple[Frame, ...]
    multiframe: bool
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class BadFile:
    """A DICOM file that cannot be a slice, with what is known of its place."""

    code: str
    series: str = ""
    study: str = ""
    patient: str = ""
    modality: str = ""
    escaping_names: bool = False  # of a DICOMDIR


def read_header(path: Path) -> DicomFile | BadFile:
    """Header of one file, read once; a problem comes back as a `BadFile` with its code."""
    try:
        parsed, stamp = _parse_file(path)
    except ScanError as error:
        return BadFile(error.code)
    found = parsed.elements
    known = BadFile("", text(found, SERIES), text(found, STUDY), patient_key(found), text(found, MODALITY))
    if DIRECTORY in found:
        return BadFile("dicomdir", escaping_names=_names_escape(found, path.parent))
    try:
        return _check(path, parsed, stamp)
    except ScanError as error:
        return BadFile(error.code, known.series, known.study, known.patient, known.modality)


def _parse_file(path: Path) -> tuple[Parsed, FileStamp]:
    size = HEAD_BYTES
    while True:
        head, stamp = read_file(path, length=size)
        if not head:
            raise ScanError("empty_file", "the file has zero bytes")
        try:
            return parse(head, complete=len(head) >= stamp.size, wanted=WANTED), stamp
        except MoreNeeded:
            size *= 16


def _check(path: Path, parsed: Parsed, stamp: FileStamp) -> DicomFile:
    found = parsed.elements
    pixels = _check_kind(parsed)
    rows, columns, allocated, signed = (_required(parsed, tag) for tag in (ROWS, COLUMNS, ALLOCATED, SIGNED))
    stored = _required(parsed, STORED)
    count = _frame_count(found)
    if not rows or not columns or count < 1:
        raise ScanError("bad_size", "Rows, Columns or NumberOfFrames is zero or no number")
    _check_bits(parsed, allocated, stored, signed)
    bytes_a_frame = rows * columns * allocated // 8
    length_warnings = _check_length(parsed, pixels, bytes_a_frame, count, stamp.size)
    frames = _frames(found, count)
    modality = text(found, MODALITY)
    return DicomFile(
        path=path,
        stamp=stamp,
        syntax=parsed.syntax,
        big_endian=parsed.big_endian,
        pixels=pixels,
        series=text(found, SERIES),
        study=text(found, STUDY),
        patient=patient_key(found),
        sop_uid=text(found, SOP_UID),
        modality=modality,
        frame_of_reference=text(found, FRAME_OF_REFERENCE),
        group=(text(found, ECHO), _b_value(found)),
        localizer="LOCALIZER" in text(found, IMAGE_TYPE).upper().split("\\"),
        projection=modality in _PROJECTIONS or text(found, SOP_CLASS).startswith(_SECONDARY_CAPTURE),
        rows=rows,
        columns=columns,
        allocated=allocated,
        stored=stored,
        signed=bool(signed),
        photometric=text(found, PHOTOMETRIC),
        between_mm=_optional_float(found, BETWEEN),
        declared_images=max(_whole(found, IMAGES), _pet_slices(parsed)),
        frames=frames,
        multiframe=PER_FRAME in found or count > 1,
        warnings=parsed.warnings + length_warnings + _content_warnings(found),
    )


def _check_bits(parsed: Parsed, allocated: int, stored: int, signed: int) -> None:
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or _integer(parsed, HIGH_BIT, stored - 1) != stored - 1 or signed > 1:
        raise ScanError("unsupported_bits", f"found {allocated} bits allocated, {stored} stored, in a combination that is not read")


_PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "RF", "XA", "RG", "US", "SC", "OT", "XC", "ES", "OP", "GM", "BMD"})


def _check_kind(parsed: Parsed) -> PixelElement:
    found, sop_class = parsed.elements, text(parsed.elements, SOP_CLASS)
    if sop_class.startswith(_NOT_IMAGES) and sop_class != _RT_IMAGE:
        raise ScanError("not_a_scan", "the object is no image: a plan, structure set, report or the like")
    if parsed.pixels is None:
        code = "missing_tag" if ROWS in found or ALLOCATED in found else "not_a_scan"
        raise ScanError(code, "the object has no pixel data")
    if parsed.pixels.tag != 0x7FE00010:
        raise ScanError("unsupported_bits", "floating point pixel data are not read")
    if PHOTOMETRIC not in found:
        raise ScanError("missing_tag", "PhotometricInterpretation is absent")
    if _required(parsed, SAMPLES) != 1 or not text(found, PHOTOMETRIC).startswith("MONOCHROME"):
        capture = sop_class.startswith(_SECONDARY_CAPTURE)
        raise ScanError("not_a_scan" if capture else "bad_datatype", "the image is in colour; grey values are wanted")
    if "MOSAIC" in text(found, IMAGE_TYPE).upper().split("\\"):
        raise ScanError("mosaic", "a mosaic of slices is not decoded; export it as one image a slice")
    return parsed.pixels


def _check_length(parsed: Parsed, pixels: PixelElement, frame_bytes: int, frames: int, size: int) -> tuple[str, ...]:
    declared = frame_bytes * frames
    if frame_bytes > _MAX_FRAME_BYTES or declared > MAX_VOXEL_BYTES or frames > _MAX_FRAMES:
        raise ScanError("declared_size", f"the header declares {declared >> 20} MiB of pixels")
    if pixels.length is None:
        return ()
    available = (len(parsed.inflated) if parsed.inflated is not None else size) - pixels.offset
    if pixels.length > available:
        raise ScanError("truncated", f"the pixel data end {pixels.length - available} bytes too early")
    if parsed.syntax.startswith("1.2.840.10008.1.2.4") or parsed.syntax.startswith("1.2.840.10008.1.2.5"):
        return ()  # a compressed syntax with a plain length: refused where the pixels are read
    if pixels.length < declared:
        raise ScanError("pixeldata_length", f"the pixel data are {declared - pixels.length} bytes too short")
    return ("pixeldata_length",) if pixels.length > declared + declared % 2 else ()


def _frames(found: Elements, count: int) -> tuple[Frame, ...]:
    if PER_FRAME not in found:
        return tuple(_frame(found, index) for index in range(count))
    items, shared = items_of(found, PER_FRAME), items_of(found, SHARED)
    if len(items) != count:
        raise ScanError("bad_header", f"{count} frames have {len(items)} descriptions")
    base = shared[0] if shared else {}
    return tuple(_frame(_flat(found, base, item), index) for index, item in enumerate(items))


def _flat(found: Elements, shared: Elements, item: Elements) -> Elements:
    merged = dict(found)
    for macro in (MEASURES, PLANE_POSITION, PLANE_ORIENTATION, TRANSFORMATION):
        for group in (shared, item):
            for inner in items_of(group, macro)[:1]:
                merged.update(inner)
    return merged


def _frame(found: Elements, index: int) -> Frame:
    slope, intercept = (_float(found, tag, "bad_rescale") for tag in (SLOPE, INTERCEPT))
    if slope == 0 or any(value is not None and not math.isfinite(value) for value in (slope, intercept)):
        raise ScanError("bad_rescale", "the rescale slope is zero, or slope or intercept are not finite")
    spacing = floats(found, SPACING, "bad_pixelspacing")
    if spacing is not None and (len(spacing) != 2 or not all(1e-6 <= value <= 200 for value in spacing)):
        raise ScanError("bad_pixelspacing", "PixelSpacing is not two plausible positive numbers")
    position = floats(found, POSITION, "bad_position")
    if position is not None and (len(position) != 3 or not all(map(math.isfinite, position))):
        raise ScanError("bad_position", "ImagePositionPatient is not three finite numbers")
    orientation = _orientation(found)
    return Frame(index, position, orientation, spacing, _optional_float(found, THICKNESS), slope, intercept, text(found, UNITS))


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


def _content_warnings(found: Elements) -> tuple[str, ...]:
    burned = text(found, BURNED_IN).upper() == "YES" or text(found, SOP_CLASS).startswith(_SECONDARY_CAPTURE)
    burned = burned or text(found, MODALITY) == "US"
    return (("burned_in_annotation",) if burned else ()) + (("bad_charset",) if _bad_charset(found) else ())


def _bad_charset(found: Elements) -> bool:
    names = [name.strip() for name in text(found, CHARSET).split("\\")]
    if any(name and name not in python_encoding for name in names):
        return True
    name = found.get(PATIENT_NAME, b"")
    if len(names) > 1 or not isinstance(name, bytes):
        return False  # code extensions switch inside a text
    try:
        name.decode(python_encoding.get(names[0], "ascii") if names[0] else "latin-1")
    except (UnicodeDecodeError, LookupError):
        return True
    return False


def _names_escape(found: Elements, folder: Path) -> bool:
    for item in items_of(found, DIRECTORY):
        parts = [part.strip() for part in text(item, REFERENCED_FILE).split("\\") if part.strip()]
        if any(part == ".." or "/" in part for part in parts) or (parts and not folder.joinpath(*parts).is_file()):
            return True
    return False


def patient_key(found: Elements) -> str:
    """`p` and 12 hex digits of the patient id without case and blanks; empty where there is none."""
    normal = "".join(text(found, PATIENT_ID).upper().split())
    return "p" + hashlib.sha256(normal.encode()).hexdigest()[:12] if normal else ""


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


def _float(found: Elements, tag: int, code: str) -> float | None:
    values = floats(found, tag, code)
    return None if values is None else values[0]


def _optional_float(found: Elements, tag: int) -> float | None:
    try:
        value = _float(found, tag, "bad_header")
    except ScanError:
        return None  # thickness and the spacing tag are never used for geometry
    return value if value is not None and math.isfinite(value) else None


def _whole(found: Elements, tag: int) -> int:
    digits = text(found, tag)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def _frame_count(found: Elements) -> int:
    return _whole(found, FRAMES) if text(found, FRAMES) else 1


def _b_value(found: Elements) -> str:
    value = found.get(B_VALUE)
    return value.hex() if isinstance(value, bytes) and value else text(found, SIEMENS_B_VALUE)


def _pet_slices(parsed: Parsed) -> int:
    return _integer(parsed, PET_SLICES, 0)


def _integer(parsed: Parsed, tag: int, default: int) -> int:
    value = parsed.elements.get(tag)
    if not isinstance(value, bytes) or len(value) != 2:
        return default
    return int(struct.unpack((">" if parsed.big_endian else "<") + "H", value)[0])


def _required(parsed: Parsed, tag: int) -> int:
    value = _integer(parsed, tag, -1)
    if value < 0:
        raise ScanError("missing_tag", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is absent, the pixels cannot be read without it")
    return value
