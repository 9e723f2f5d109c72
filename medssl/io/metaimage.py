"""MetaImage, in one file (.mha) or with a detached header (.mhd). https://itk.org/Wiki/MetaIO/Documentation, trust rule 13."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.errors import ScanError
from medssl.io.files import inner_place, read_beside, read_file
from medssl.io.grid import (
    affine_warnings,
    check_declared,
    checked_affine,
    name_warnings,
    nth_volume,
    numbers,
    text_voxels,
    volumes_shape,
    whole_numbers,
)
from medssl.io.inflate import Inflater
from medssl.io.voxels import RawScan, rescaled
from medssl.volume import Affine, Array

_MAX_HEADER = 1 << 16
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OF_COMPILER = frozenset({"MET_LONG", "MET_ULONG"})  # four bytes by the format, eight by some who wrote it
_ALIASES = {
    "Origin": "Offset",
    "Position": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_MILLIMETRES = {"": 1.0, "?": 1.0, "mm": 1.0, "um": 0.001, "cm": 10.0}
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_PATTERN = re.compile(r"(.*%\d*d.*?)\s+-?\d+\s+-?\d+\s+-?\d+")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CLEAR_COSINE = 0.8  # an axis further from R, A and S has no letter of its own
_FROM = ("RL", "AP", "IS")  # letters of AnatomicalOrientation: where an axis comes from, for the axes L, P, S


@dataclass(frozen=True, eq=False)
class MetaHeader:
    """The fields that reading needs.

    Args:
        sizes: Voxels along I, J, K, and how many such volumes follow one another.
        data_file: Name of the detached data, empty where they follow the header.
        skip: Bytes before the voxels in the detached file; -1 where these are its last.
        length: Bytes of the header itself.
        binary: The voxels are no decimal numbers.
        rescale: Slope and intercept from stored values to intensities.
    """

    sizes: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    element_type: str
    affine: Affine
    data_file: str
    skip: int
    length: int
    binary: bool
    compressed: bool
    rescale: tuple[float, float]
    modality: str
    warnings: tuple[str, ...]


def read_metaimage(path: Path, volume: int | None = None) -> RawScan:
    """Values with the header's matrix, spacing and offset; without one of them there is no geometry.

    Args:
        path: The file, or its header.
        volume: Number of the volume of a file of several; None refuses such a file.

    Raises:
        ScanError: `bad_header`, `bad_datatype`, `bad_size`, `not_3d`, `declared_size`, `no_geometry`, `bad_orientation`,
            `bad_pixelspacing`, `bad_rescale`, `path_escape`, `truncated`, `corrupt_gzip`, `inflated_size`, `unsupported_format`.
    """
    header = parse_header(read_file(path, length=_MAX_HEADER)[0], split=volume is not None)
    values, more = _voxels(path, header)
    if more and header.element_type in _OF_COMPILER:
        raise ScanError("bad_datatype", "the voxels of type LONG have more than four bytes")
    found = [*header.warnings, *name_warnings(path.name, "metaimage")]
    found += ["trailing_bytes"] * more + ["single_slice"] * (header.sizes[2] == 1)
    return RawScan(rescaled(nth_volume(values, volume), *header.rescale), header.affine, modality=header.modality, warnings=tuple(found))


def count_volumes(path: Path) -> int:
    """How many volumes follow one another in a file.

    Raises:
        ScanError: As `parse_header`.
    """
    return parse_header(read_file(path, length=_MAX_HEADER)[0], split=True).sizes[3]


def data_file(head: bytes) -> str:
    """Name of the detached data, empty where there is none or where it may not be followed."""
    try:
        return _data_name(_fields(head)[0])
    except ScanError:
        return ""


def parse_header(head: bytes, *, split: bool = False) -> MetaHeader:
    """Fields of a MetaImage header, checked before anything is opened or allocated; with `split` it may hold several volumes.

    Raises:
        ScanError: As `read_metaimage`.
    """
    fields, length = _fields(head)
    if fields.get("ObjectType", "Image") != "Image":
        raise ScanError("not_a_scan", "the object is no image")
    name = _data_name(fields)
    channels = whole_numbers(fields.get("ElementNumberOfChannels", "1"))
    if fields.get("ElementType") not in _TYPES or channels != [1]:
        raise ScanError("bad_datatype", "the voxel type is unknown, an array, or has several channels")
    dtype: np.dtype[np.generic] = np.dtype(_TYPES[fields["ElementType"]])
    dtype = dtype.newbyteorder(">" if _flag(fields, "BinaryDataByteOrderMSB") else "<")
    sizes, axes = _sizes(fields, split=split)
    check_declared(sizes, dtype)
    affine, warnings = _affine(fields, axes)
    skip = whole_numbers(fields.get("HeaderSize", "0"))
    if len(skip) != 1 or skip[0] < -1:
        raise ScanError("bad_header", "HeaderSize has no meaning")
    return MetaHeader(
        sizes=sizes,
        dtype=dtype,
        element_type=fields["ElementType"],
        affine=affine,
        data_file=name,
        skip=skip[0] if name else 0,
        length=length,
        binary=_flag(fields, "BinaryData", default=True),
        compressed=_flag(fields, "CompressedData"),
        rescale=_rescale(fields),
        modality=_MODALITIES.get(fields.get("Modality", ""), ""),
        warnings=tuple(warnings),
    )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Fields by name, and the length of the header, which ends with the line `ElementDataFile`."""
    fields: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", at)
        if end < 0 and len(head) >= _MAX_HEADER:
            raise ScanError("bad_header", "the header has no line ElementDataFile")
        end = len(head) if end < 0 else end
        if at >= len(head):
            raise ScanError("truncated", "the file ends before the line ElementDataFile")
        line, at = head[at:end].decode("utf-8", "replace"), end + 1
        found = _LINE.fullmatch(line)
        name = _ALIASES.get(found[1], found[1]) if found else ""
        if found is None or fields.setdefault(name, found[2]) != found[2]:
            raise ScanError("bad_header", "a line of the header is no field, or contradicts another")
    if fields["ElementDataFile"].startswith("LIST"):
        fields["ElementDataFile"] += "\n" + head[at:].decode("utf-8", "replace").strip()
    return fields, at


def _data_name(fields: dict[str, str]) -> str:
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return ""
    lines = [line.strip() for line in name.split("\n")]
    several = name.startswith("LIST")
    pattern = _PATTERN.fullmatch(name)
    for each in lines[1:] if several else [pattern[1] if pattern else name]:
        inner_place(each)
    if several or pattern:
        raise ScanError("unsupported_format", "voxels spread over several files are not read")
    return name


def _flag(fields: dict[str, str], name: str, *, default: bool = False) -> bool:
    value = fields.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise ScanError("bad_header", f"{name} is neither True nor False")
    return value in ("true", "1")


def _sizes(fields: dict[str, str], *, split: bool) -> tuple[tuple[int, int, int, int], int]:
    """Sizes of the three axes with the number of volumes, and how many axes the header has."""
    sizes, axes = whole_numbers(fields.get("DimSize", "")), whole_numbers(fields.get("NDims", ""))
    if axes != [len(sizes)]:
        raise ScanError("bad_header", "the sizes are not as many as the dimensions")
    shape, volumes = volumes_shape(sizes, split=split)
    return (*shape, volumes), len(sizes)


def _rescale(fields: dict[str, str]) -> tuple[float, float]:
    slope, intercept = (numbers(fields.get(f"ElementToIntensityFunction{part}", default), 1)[0] for part, default in _RESCALE)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ScanError("bad_rescale", "the slope is zero, or slope or offset are not finite")
    return slope, intercept


_RESCALE = (("Slope", "1"), ("Offset", "0"))


def _affine(fields: dict[str, str], axes: int) -> tuple[Affine, list[str]]:
    if not {"TransformMatrix", "Offset", "ElementSpacing"} <= fields.keys():
        raise ScanError("no_geometry", "TransformMatrix, Offset or ElementSpacing is not given")
    spacing = np.array(numbers(fields["ElementSpacing"], axes, "bad_pixelspacing")[:3])
    if not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise ScanError("bad_pixelspacing", "the spacing is zero, negative or not a number")
    # each run of numbers is the direction of one axis
    directions = np.reshape(numbers(fields["TransformMatrix"], axes**2, "bad_orientation"), (axes, axes))[:3, :3].T
    if np.isfinite(directions).all() and np.abs(np.linalg.norm(directions, axis=0) - 1).max() > 0.01:
        raise ScanError("bad_orientation", "an axis has no unit direction")
    unit = fields.get("DistanceUnits", "").lower()
    if unit not in _MILLIMETRES:
        raise ScanError("bad_header", "the unit of distance is unknown")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * spacing, numbers(fields["Offset"], axes)[:3]
    affine[:3] *= _MILLIMETRES[unit]
    warnings = affine_warnings(checked_affine(affine)) + _code_warnings(fields, directions)
    return _LPS_TO_RAS @ affine, warnings + ["units_converted"] * (_MILLIMETRES[unit] != 1)


def _code_warnings(fields: dict[str, str], directions: Array) -> list[str]:
    """`orientation_code_disagrees`, where AnatomicalOrientation names other axes than the matrix; the matrix rules."""
    code = fields.get("AnatomicalOrientation", "").upper()
    matrix = np.asarray(directions, dtype=np.float64)
    largest = np.abs(matrix).argmax(axis=0)
    if np.abs(matrix).max(axis=0).min() < _CLEAR_COSINE or len(code) != 3 or set(code) - set("RLAPIS"):
        return []
    meant = "".join(_FROM[axis][int(matrix[axis, column] < 0)] for column, axis in enumerate(largest))
    return ["orientation_code_disagrees"] if code != meant else []


def _voxels(path: Path, header: MetaHeader) -> tuple[Array, bool]:
    size = check_declared(header.sizes, header.dtype)
    if header.binary and not header.compressed:
        data, more = _raw(path, header, size)
    elif header.skip:
        raise ScanError("unsupported_format", "a HeaderSize before compressed data or text is not read")
    elif not header.binary:
        return text_voxels(_open(path, header, 0)[0], header.sizes, header.dtype)
    else:
        stream = Inflater(_open(path, header, 0)[0], "zlib")
        stream.check_ratio(size)
        data, more = stream.rest(size)
    if len(data) < size:
        raise ScanError("truncated", f"the file ends {size - len(data)} bytes before its voxels do")
    return np.frombuffer(data, header.dtype, size // header.dtype.itemsize).reshape(header.sizes, order="F"), more


def _raw(path: Path, header: MetaHeader, size: int) -> tuple[bytes, bool]:
    skip = header.skip
    if skip < 0:  # the voxels are the last bytes of the file
        skip = _open(path, header, 0, length=0)[1] - size
        if skip < 0:
            raise ScanError("truncated", "the file is shorter than its voxels")
    data, total = _open(path, header, skip, length=size)
    return data, total > (0 if header.data_file else header.length) + skip + size


def _open(path: Path, header: MetaHeader, skip: int, *, length: int | None = None) -> tuple[bytes, int]:
    """Data from `skip` bytes after the header, or in the detached file, and the size of the file that holds them."""
    if header.data_file:
        data, stamp = read_beside(path, header.data_file, start=skip, length=length)
    else:
        data, stamp = read_file(path, start=header.length + skip, length=length)
    return data, stamp.size
