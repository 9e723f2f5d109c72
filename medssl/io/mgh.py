"""FreeSurfer volumes, plain (.mgh) or gzipped (.mgz), as https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat has them."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.errors import ScanError
from medssl.io.files import HEAD_BYTES, read_file
from medssl.io.grid import affine_warnings, check_declared, checked_affine, name_warnings, nth_volume, volumes_shape
from medssl.io.inflate import Inflater
from medssl.io.voxels import RawScan
from medssl.volume import Affine

_LAYOUT = struct.Struct(">7ih15f")
_HEADER_BYTES = 284
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_FOOTER_BYTES = 1 << 20  # scan parameters and tags may follow the voxels


@dataclass(frozen=True, eq=False)
class MghHeader:
    """The fields that reading needs; `volumes` of one `shape` follow one another, `end` is where the last one ends, in bytes."""

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[np.generic]
    affine: Affine
    end: int
    warnings: tuple[str, ...]


def read_mgh(path: Path, volume: int | None = None) -> RawScan:
    """Values as stored; a header whose geometry is not valid by its own flag has none.

    Args:
        path: The file.
        volume: Number of the volume of a file of several; None refuses such a file.

    Raises:
        ScanError: `truncated`, `corrupt_gzip`, `inflated_size`, `declared_size`, `bad_header`, `bad_datatype`, `bad_size`, `not_3d`,
            `no_geometry`, `bad_orientation`, `bad_pixelspacing`.
    """
    raw, _ = read_file(path)
    split = volume is not None
    if raw[:2] == b"\x1f\x8b":
        header, data, more = _read_gzip(raw, split=split)
    else:
        header, data = parse_header(raw, split=split), raw
        more = len(raw) > header.end + _FOOTER_BYTES
    if len(data) < header.end:
        raise ScanError("truncated", f"the file ends {header.end - len(data)} bytes before its voxels do")
    found = [*header.warnings, *name_warnings(path.name, "mgh")]
    found += ["trailing_bytes"] * more + ["single_slice"] * (header.shape[2] == 1)
    count = (header.end - _HEADER_BYTES) // header.dtype.itemsize
    values = np.frombuffer(data, header.dtype, count, _HEADER_BYTES).reshape((*header.shape, header.volumes), order="F")
    return RawScan(nth_volume(values, volume), header.affine, warnings=tuple(found))


def count_volumes(path: Path) -> int:
    """How many volumes follow one another in a file.

    Raises:
        ScanError: As `parse_header`.
    """
    head, _ = read_file(path, length=HEAD_BYTES)
    return parse_header(Inflater(head).take(_HEADER_BYTES) if head[:2] == b"\x1f\x8b" else head, split=True).volumes


def _read_gzip(raw: bytes, *, split: bool) -> tuple[MghHeader, bytes, bool]:
    stream = Inflater(raw)
    head = stream.take(_HEADER_BYTES)
    try:
        header = parse_header(head, split=split)
        stream.check_ratio(header.end)
    except ScanError:
        stream.drain()
        raise
    data, _ = stream.rest(header.end - len(head))
    return header, head + data, not stream.ended


def parse_header(head: bytes, *, split: bool = False) -> MghHeader:
    """Fields of an MGH header, checked before anything is allocated; with `split` it may hold several volumes.

    Raises:
        ScanError: As `read_mgh`.
    """
    if len(head) < _HEADER_BYTES:
        raise ScanError("truncated", "the file ends inside its header")
    version, *sizes, kind, _, good, dx, dy, dz = _LAYOUT.unpack_from(head)[:11]
    if version != 1:
        raise ScanError("bad_header", "the version is not 1")
    if kind not in _TYPES:
        raise ScanError("bad_datatype", f"voxel type {kind} is not read")
    dtype: np.dtype[np.generic] = np.dtype(_TYPES[kind])
    shape, volumes = volumes_shape(sizes, split=split)
    declared = check_declared((*shape, volumes), dtype)
    if good != 1:
        raise ScanError("no_geometry", "the header says that its geometry is not valid")
    affine = _affine(shape, np.array([dx, dy, dz]), np.array(_LAYOUT.unpack_from(head)[11:]))
    return MghHeader(shape, volumes, dtype, affine, _HEADER_BYTES + declared, tuple(affine_warnings(affine)))


def _affine(shape: tuple[int, int, int], spacing: Affine, geometry: Affine) -> Affine:
    """Affine from the spacing, three direction cosines and the place of the voxel at half of the sizes, all in RAS."""
    if not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise ScanError("bad_pixelspacing", "the spacing is zero, negative or not a number")
    directions, centre = geometry[:9].reshape(3, 3).T, geometry[9:]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) / 2)
    return checked_affine(affine)
