"""One DICOM file's header, checked: what a slice must say before its pixels are read. PS3.3 C.7.6, trust rules 4 to 9."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.charset import python_encoding

from medssl.errors import ScanError
from medssl.io.dicom.elements import Elements, MoreNeeded, Parsed, PixelElement, parse
from medssl.io.dicom.frames import Frame, frames
from medssl.io.dicom.siemens import is_mosaic
from medssl.io.dicom.tags import (
    ALLOCATED,
    B_VALUE,
    BETWEEN,
    BURNED_IN,
    CHARSET,
    COLUMNS,
    DIRECTORY,
    DOUBLE_PIXELS,
    ECHO,
    FLOAT_PIXELS,
    FRAME_OF_REFERENCE,
    FRAMES,
    HIGH_BIT,
    IMAGE_TYPE,
    IMAGES,
    MODALITY,
    MODALITY_TABLE,
    PATIENT_ID,
    PATIENT_NAME,
    PER_FRAME,
    PET_SLICES,
    PHOTOMETRIC,
    PIXELS,
    REFERENCED_FILE,
    ROWS,
    SAMPLES,
    SERIES,
    SIEMENS_B_VALUE,
    SIGNED,
    SOP_CLASS,
    SOP_UID,
    STORED,
    STUDY,
    WANTED,
    integer,
    items_of,
    optional_float,
    text,
    whole,
)
from medssl.io.files import HEAD_BYTES, FileStamp, read_file, stands_there
from medssl.io.voxels import MAX_VOXEL_BYTES

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
_MAX_FRAME_BYTES = 1 << 30
_MAX_FRAMES = 1 << 20


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

    @property
    def floating(self) -> bool:
        """The pixels are floating point numbers (PS3.3 C.7.6.24 and C.7.6.25)."""
        return self.pixels.tag != PIXELS


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
    """Header of one file; a problem comes back as a `BadFile` with its code."""
    try:
        head, stamp = read_file(path, length=HEAD_BYTES)
        parsed, _, stamp = parse_header(path, head, stamp)
    except ScanError as error:
        return BadFile(error.code)
    return check_header(path, parsed, stamp)


def parse_header(path: Path, head: bytes, stamp: FileStamp, *, wanted: frozenset[int] = WANTED) -> tuple[Parsed, bytes, FileStamp]:
    """The wanted elements of a file whose first bytes are given, and as many of its bytes as it took.

    Raises:
        ScanError: `empty_file`, and the codes of `medssl.io.dicom.elements.parse` and `medssl.io.files.read_file`.
    """
    while True:
        if not head:
            raise ScanError("empty_file", "the file has zero bytes")
        try:
            return parse(head, complete=len(head) >= stamp.size, wanted=wanted), head, stamp
        except MoreNeeded:
            head, stamp = read_file(path, length=16 * len(head))


def check_header(path: Path, parsed: Parsed, stamp: FileStamp) -> DicomFile | BadFile:
    """The header that parsed elements make; a problem comes back as a `BadFile` with its code."""
    found = parsed.elements
    if DIRECTORY in found:
        return BadFile("dicomdir", escaping_names=_names_escape(found, path.parent))
    try:
        return _check(path, parsed, stamp)
    except ScanError as error:
        return BadFile(error.code, text(found, SERIES), text(found, STUDY), patient_key(found), text(found, MODALITY))


def _check(path: Path, parsed: Parsed, stamp: FileStamp) -> DicomFile:
    found = parsed.elements
    pixels = _check_kind(parsed)
    rows, columns, allocated = (_required(parsed, tag) for tag in (ROWS, COLUMNS, ALLOCATED))
    stored, signed = _bits(parsed, pixels, allocated)
    count = _frame_count(found)
    if not rows or not columns or count < 1:
        raise ScanError("bad_size", "Rows, Columns or NumberOfFrames is zero or no number")
    bytes_a_frame = rows * columns * allocated // 8
    length_warnings = _check_length(parsed, pixels, bytes_a_frame, count, stamp.size)
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
        modality=text(found, MODALITY),
        frame_of_reference=text(found, FRAME_OF_REFERENCE),
        group=(text(found, ECHO), _b_value(found)),
        localizer="LOCALIZER" in text(found, IMAGE_TYPE).upper().split("\\"),
        projection=_is_projection(found),
        rows=rows,
        columns=columns,
        allocated=allocated,
        stored=stored,
        signed=signed,
        photometric=text(found, PHOTOMETRIC),
        between_mm=optional_float(found, BETWEEN),
        declared_images=max(whole(found, IMAGES), _pet_slices(parsed)),
        frames=frames(parsed, count),
        multiframe=PER_FRAME in found or count > 1,
        warnings=parsed.warnings + length_warnings + _content_warnings(found),
    )


def _bits(parsed: Parsed, pixels: PixelElement, allocated: int) -> tuple[int, bool]:
    """Bits stored and whether the values are signed; floating point pixels declare neither."""
    if pixels.tag != PIXELS:
        if allocated != _FLOAT_BITS[pixels.tag]:
            raise ScanError("unsupported_bits", f"found {allocated} bits allocated for floating point pixels")
        return allocated, True
    stored, signed = _required(parsed, STORED), _required(parsed, SIGNED)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or integer(parsed, HIGH_BIT, stored - 1) != stored - 1 or signed > 1:
        raise ScanError("unsupported_bits", f"found {allocated} bits allocated, {stored} stored, in a combination that is not read")
    return stored, bool(signed)


_FLOAT_BITS = {FLOAT_PIXELS: 32, DOUBLE_PIXELS: 64}
_PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "RF", "XA", "RG", "US", "SC", "OT", "XC", "ES", "OP", "GM", "BMD"})


def _check_kind(parsed: Parsed) -> PixelElement:
    found, sop_class = parsed.elements, text(parsed.elements, SOP_CLASS)
    if sop_class.startswith(_NOT_IMAGES) and sop_class != _RT_IMAGE:
        raise ScanError("not_a_scan", "the object is no image: a plan, structure set, report or the like")
    if parsed.pixels is None:
        code = "missing_tag" if ROWS in found or ALLOCATED in found else "not_a_scan"
        raise ScanError(code, "the object has no pixel data")
    if PHOTOMETRIC not in found:
        raise ScanError("missing_tag", "PhotometricInterpretation is absent")
    if _required(parsed, SAMPLES) != 1 or not text(found, PHOTOMETRIC).startswith("MONOCHROME"):
        capture = sop_class.startswith(_SECONDARY_CAPTURE)
        raise ScanError("not_a_scan" if capture else "bad_datatype", "the image is in colour; grey values are wanted")
    if is_mosaic(parsed):
        raise ScanError("mosaic", "a mosaic of slices is not decoded; export it as one image a slice")
    if items_of(found, MODALITY_TABLE) and not _is_projection(found):
        raise ScanError("modality_lut", "a table gives the values their unit; it is not applied")
    return parsed.pixels


def _is_projection(found: Elements) -> bool:
    return text(found, MODALITY) in _PROJECTIONS or text(found, SOP_CLASS).startswith(_SECONDARY_CAPTURE)


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
        if any(part == ".." or "/" in part for part in parts) or (parts and not stands_there(folder.joinpath(*parts), Path.is_file)):
            return True
    return False


def patient_key(found: Elements) -> str:
    """`p` and 12 hex digits of the patient id without case and blanks; empty where there is none."""
    normal = "".join(text(found, PATIENT_ID).upper().split())
    return "p" + hashlib.sha256(normal.encode()).hexdigest()[:12] if normal else ""


def _frame_count(found: Elements) -> int:
    return whole(found, FRAMES) if text(found, FRAMES) else 1


def _b_value(found: Elements) -> str:
    value = found.get(B_VALUE)
    return value.hex() if isinstance(value, bytes) and value else text(found, SIEMENS_B_VALUE)


def _pet_slices(parsed: Parsed) -> int:
    return integer(parsed, PET_SLICES, 0)


def _required(parsed: Parsed, tag: int) -> int:
    value = integer(parsed, tag, -1)
    if value < 0:
        raise ScanError("missing_tag", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is absent, the pixels cannot be read without it")
    return value
