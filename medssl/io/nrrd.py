"""NRRD, attached (.nrrd) or with a detached header (.nhdr). http://teem.sourceforge.net/nrrd/format.html, trust rule 13."""

import re
from collections.abc import Sequence
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
from medssl.io.inflate import Inflater, Kind
from medssl.io.voxels import RawScan
from medssl.volume import Affine, Array

_MAGIC = re.compile(rb"NRRD000[1-5]\r?")
_MAX_HEADER = 1 << 20
_KNOWN = frozenset(
    {"axismaxs", "axismins", "blocksize", "byteskip", "centerings", "centers", "content", "datafile", "dimension", "encoding", "endian"}
    | {"kinds", "labels", "lineskip", "max", "measurementframe", "min", "number", "oldmax", "oldmin", "sampleunits", "sizes", "space"}
    | {"spacedimension", "spacedirections", "spaceorigin", "spaceunits", "spacings", "thicknesses", "type", "units"}
)
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_ENCODINGS = {"raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2", "hex": "hex"} | dict.fromkeys(
    ("txt", "text", "ascii"), "text"
)
_STREAMS: dict[str, Kind] = {"gzip": "gzip", "bzip2": "bzip2"}
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_NOT_ANATOMICAL = frozenset({"", "scanner-xyz", "3d-right-handed", "3d-left-handed"})
_MILLIMETRES = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "\u00b5m": 0.001}
_SPATIAL = frozenset({"domain", "space", "none", "???"})
_SERIAL = frozenset({"time", "list", "point"})
_VECTOR = re.compile(r"\s*(?:none|\(([^()]*)\))", re.IGNORECASE)
_PATTERN = re.compile(r"(.*%\d*d.*?)(\s+-?\d+){3,4}")


@dataclass(frozen=True, eq=False)
class NrrdHeader:
    """The fields that reading needs.

    Args:
        sizes: Voxels along the three axes in space, fastest first, and how many such volumes there are.
        serial: Place of the axis that counts the volumes among the axes of the file.
        encoding: `raw`, `gzip`, `bzip2`, `hex` or `text`.
        data_file: Name of the detached data, empty where they follow the header.
        byte_skip: Bytes before the voxels; -1 where these are the last of the file.
        length: Bytes of the header itself.
        nominal: The unit of the spacing is not known.
    """

    sizes: tuple[int, int, int, int]
    serial: int
    dtype: np.dtype[np.generic]
    encoding: str
    affine: Affine
    data_file: str
    byte_skip: int
    length: int
    nominal: bool
    warnings: tuple[str, ...]


def read_nrrd(path: Path, volume: int | None = None) -> RawScan:
    """Values as stored, with `space directions` and `space origin`; a header without `space` has no geometry.

    Args:
        path: The file, or its header.
        volume: Number of the volume of a file of several; None refuses such a file.

    Raises:
        ScanError: `bad_header`, `bad_datatype`, `bad_size`, `not_3d`, `declared_size`, `no_geometry`, `bad_orientation`,
            `bad_pixelspacing`, `path_escape`, `truncated`, `corrupt_gzip`, `inflated_size`, `unsupported_format`.
    """
    header = parse_header(read_file(path, length=_MAX_HEADER)[0], split=volume is not None)
    values, more = _voxels(path, header)
    found = [*header.warnings, *name_warnings(path.name, "nrrd")]
    found += ["trailing_bytes"] * more + ["single_slice"] * (header.sizes[2] == 1)
    return RawScan(nth_volume(values, volume), header.affine, nominal=header.nominal, warnings=tuple(found))


def count_volumes(path: Path) -> int:
    """How many volumes there are in a file.

    Raises:
        ScanError: As `parse_header`.
    """
    return parse_header(read_file(path, length=_MAX_HEADER)[0], split=True).sizes[3]


def data_file(head: bytes) -> str:
    """Name of the detached data, empty where there is none or where it may not be followed."""
    try:
        fields, _ = _fields(head)
        return _data_name(fields)
    except ScanError:
        return ""


def parse_header(head: bytes, *, split: bool = False) -> NrrdHeader:
    """Fields of an NRRD header, checked before anything is opened or allocated; with `split` it may hold several volumes.

    Raises:
        ScanError: As `read_nrrd`.
    """
    fields, length = _fields(head)
    name = _data_name(fields)
    dtype = _dtype(fields)
    sizes, serial, directions = _axes(fields, split=split)
    check_declared(sizes, dtype)
    affine, nominal, warnings = _affine(fields, directions)
    skip = whole_numbers(fields.get("byteskip", "0"))
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None or len(skip) != 1 or skip[0] < -1:
        raise ScanError("bad_header", "the encoding or the byte skip has no meaning")
    if fields.get("lineskip", "0") != "0" or (skip[0] and encoding != "raw"):
        raise ScanError("unsupported_format", "lines, or bytes of encoded data, that are to be skipped are not read")
    return NrrdHeader(sizes, serial, dtype, encoding, affine, name, skip[0], length, nominal, tuple(warnings))


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Fields by name without blanks, and the length of the header; lines after `data file: LIST` stay in that field."""
    fields: dict[str, str] = {}
    at = head.find(b"\n") + 1
    if not at or not _MAGIC.fullmatch(head[: at - 1]):
        raise ScanError("bad_header", "the first line is none of an NRRD file")
    while at < len(head):
        end = head.find(b"\n", at)
        end = len(head) if end < 0 else end
        line, at = head[at:end].decode("utf-8", "replace").rstrip("\r"), end + 1
        if not line:
            return fields, at
        if line.startswith("#") or ":=" in line.split(": ")[0]:
            continue
        if fields.get("datafile", "").startswith("LIST"):
            fields["datafile"] += f"\n{line}"
            continue
        name, colon, value = line.partition(": ")
        name = name.lower().replace(" ", "")
        if not colon or name not in _KNOWN or name in fields:
            raise ScanError("bad_header", "a line of the header is no field, unknown, or stands twice")
        fields[name] = value.strip()
    if len(head) >= _MAX_HEADER or "datafile" not in fields:
        raise ScanError("bad_header" if len(head) >= _MAX_HEADER else "truncated", "the header has no end")
    return fields, len(head)


def _data_name(fields: dict[str, str]) -> str:
    name = fields.get("datafile", "")
    if not name:
        return ""
    lines = name.split("\n")
    several = len(lines) > 1 or name.startswith("LIST")
    pattern = _PATTERN.fullmatch(name)
    for each in lines[1:] if several else [pattern[1] if pattern else name]:
        inner_place(each)
    if several or pattern:
        raise ScanError("unsupported_format", "voxels spread over several files are not read")
    return name


def _dtype(fields: dict[str, str]) -> np.dtype[np.generic]:
    kind = fields.get("type", "").lower()
    if kind not in _DTYPES:
        raise ScanError("bad_datatype" if kind else "bad_header", "the voxel type is unknown or absent")
    dtype: np.dtype[np.generic] = np.dtype(_DTYPES[kind])
    order = fields.get("endian", "").lower()
    needed = dtype.itemsize > 1 and _ENCODINGS.get(fields.get("encoding", "").lower()) != "text"
    if order not in ("little", "big") and (needed or order):
        raise ScanError("bad_header", "the byte order is unknown or absent")
    return dtype.newbyteorder(">" if order == "big" else "<")


def _axes(fields: dict[str, str], *, split: bool) -> tuple[tuple[int, int, int, int], int, list[str]]:
    """Sizes of the three axes in space and of the one that counts volumes, the place of that one, and directions in space."""
    sizes, dimension = whole_numbers(fields.get("sizes", "")), whole_numbers(fields.get("dimension", ""))
    if dimension != [len(sizes)] or not 1 <= len(sizes) <= 16:
        raise ScanError("bad_header", "the sizes are not as many as the dimensions")
    if min(sizes) < 1:
        raise ScanError("bad_size", "a dimension is zero or negative")
    kinds = fields.get("kinds", "").lower().split() or ["none"] * len(sizes)
    directions = _directions(fields.get("spacedirections", ""), len(sizes))
    if len(kinds) != len(sizes):
        raise ScanError("bad_header", "the kinds are not as many as the dimensions")
    for size, kind in zip(sizes, kinds, strict=True):
        if size > 1 and kind not in _SPATIAL and not (split and kind in _SERIAL):
            raise ScanError("not_3d" if kind in _SERIAL else "bad_datatype", f"an axis of kind {kind[:20]} is not read")
    kept = [axis for axis, kind in enumerate(kinds) if sizes[axis] > 1 or (kind in _SPATIAL and directions[axis] != "none")]
    counted = [axis for axis in kept if kinds[axis] in _SERIAL or directions[axis] == "none"] if split and len(kept) == 4 else []
    in_space = [axis for axis in kept if axis not in counted[:1]]
    shape, volumes = volumes_shape([sizes[axis] for axis in (*in_space, *counted[:1])], split=bool(counted))
    serial = sum(axis < counted[0] for axis in in_space) if counted else 3
    return (*shape, volumes), serial, [directions[axis] for axis in in_space[:3]]


def _directions(text: str, count: int) -> list[str]:
    """What stands for each axis: `none`, the inside of the brackets, or nothing where the field is absent."""
    if not text:
        return [""] * count
    found = [match[1] or "none" for match in _VECTOR.finditer(text)]
    if len(found) != count or _VECTOR.sub("", text).strip():
        raise ScanError("bad_header", "the space directions are not one vector for each axis")
    return found


def _affine(fields: dict[str, str], directions: Sequence[str]) -> tuple[Affine, bool, list[str]]:
    space = fields.get("space", "").lower()
    if space in _NOT_ANATOMICAL:
        raise ScanError("no_geometry", "the space is not given, or is not that of the patient")
    if space not in _TO_RAS:
        raise ScanError("not_3d" if space.endswith(("time", "t")) else "bad_header", "the space is unknown")
    origin = fields.get("spaceorigin", "")
    if not origin or any(each in ("", "none") for each in directions):
        raise ScanError("no_geometry", "the origin or the direction of an axis is not given")
    affine = np.eye(4)
    for axis, vector in enumerate(directions):
        affine[:3, axis] = numbers(vector, 3, "bad_orientation")
    if not (origin.startswith("(") and origin.endswith(")")):
        raise ScanError("bad_header", "the space origin is no vector")
    affine[:3, 3] = numbers(origin[1:-1], 3)
    units = [unit.strip().lower() for unit in re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))] or [""] * 3
    scales = [_MILLIMETRES.get(unit, 1.0) for unit in units]
    if len(units) != 3:
        raise ScanError("bad_header", "the space units are not three")
    affine[:3] *= np.array(scales)[:, None] * np.array(_TO_RAS[space])[:, None]
    warnings = affine_warnings(checked_affine(affine))
    nominal = any(unit not in _MILLIMETRES for unit in units)
    return affine, nominal, warnings + ["units_converted"] * (set(scales) != {1.0})


def _voxels(path: Path, header: NrrdHeader) -> tuple[Array, bool]:
    size = check_declared(header.sizes, header.dtype)
    stored = [*header.sizes[:3]]
    stored.insert(header.serial, header.sizes[3])
    if header.encoding == "raw":
        data, more = _raw(path, header, size)
    else:
        raw, _ = _open(path, header, 0)
        if header.encoding == "text":
            values, more = text_voxels(raw, stored, header.dtype)
            return np.moveaxis(values, header.serial, 3), more
        if header.encoding == "hex":
            data, more = _from_hex(raw, size)
        else:
            stream = Inflater(raw, _STREAMS[header.encoding])
            stream.check_ratio(size)
            data, more = stream.rest(size)
    if len(data) < size:
        raise ScanError("truncated", f"the file ends {size - len(data)} bytes before its voxels do")
    values = np.frombuffer(data, header.dtype, size // header.dtype.itemsize).reshape(stored, order="F")
    return np.moveaxis(values, header.serial, 3), more


def _raw(path: Path, header: NrrdHeader, size: int) -> tuple[bytes, bool]:
    skip = header.byte_skip
    if skip < 0:  # the voxels are the last bytes of the file
        skip = _open(path, header, 0, length=0)[1] - size - (0 if header.data_file else header.length)
        if skip < 0:
            raise ScanError("truncated", "the file is shorter than its voxels")
    data, total = _open(path, header, skip, length=size)
    return data, total > (0 if header.data_file else header.length) + skip + size


def _open(path: Path, header: NrrdHeader, skip: int, *, length: int | None = None) -> tuple[bytes, int]:
    """Data from `skip` bytes after the header, or in the detached file, and the size of the file that holds them."""
    if header.data_file:
        data, stamp = read_beside(path, header.data_file, start=skip, length=length)
    else:
        data, stamp = read_file(path, start=header.length + skip, length=length)
    return data, stamp.size


def _from_hex(raw: bytes, size: int) -> tuple[bytes, bool]:
    digits = b"".join(raw.split())
    try:
        return bytes.fromhex(digits[: 2 * size].decode("ascii")), len(digits) > 2 * size
    except ValueError as error:
        raise ScanError("bad_header", "the hexadecimal voxels hold something else") from error
