"""NIfTI-1 and NIfTI-2, plain, gzipped or as a pair. https://nifti.nimh.nih.gov, trust rules 10 and 11."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.files import HEAD_BYTES, claimed_format, pair_image, read_file
from medssl.io.grid import affine_warnings, check_declared, checked_affine, nth_volume, volumes_shape
from medssl.io.inflate import Inflater
from medssl.io.voxels import RawScan, rescaled
from medssl.volume import Affine, Array

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of xyzt_units: unknown, metre, millimetre, micron
_HEAD_BYTES = 1024
_FORMS_AGREE_MM = 0.05
_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The fields that reading needs; `offset` is where the voxels begin, in bytes; `volumes` of one `shape` follow one another."""

    fields: NDArray[np.void]
    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[np.generic]
    offset: int
    pair: bool

    @property
    def end(self) -> int:
        """Where the voxels end, in bytes."""
        return self.offset + math.prod(self.shape) * self.volumes * self.dtype.itemsize


def read_nifti(path: Path, volume: int | None = None) -> RawScan:
    """Values after scaling with the sform or qform; no code is no geometry, unknown units are nominal.

    Args:
        path: A `.nii`, a `.nii.gz`, or the `.hdr` of a pair.
        volume: Number of the volume of a file of several; None refuses such a file.

    Raises:
        ScanError: `not_nifti`, `truncated`, `corrupt_gzip`, `inflated_size`, `declared_size`, `bad_*`, `not_3d`, `no_geometry`,
            `left_right_ambiguous`, `not_found` without the `.img` of a pair, `unsupported_format` for a gzipped pair.
    """
    raw, _ = read_file(path)
    split = volume is not None
    if raw[:2] == b"\x1f\x8b":
        header, data, warnings = _read_gzip(raw, split=split)
    else:
        header = parse_header(raw, split=split)
        data = read_file(pair_image(path))[0] if header.pair else raw
        warnings = ["trailing_bytes"] if len(data) > header.end else []
    warnings += _name_warnings(path.name, zipped=raw[:2] == b"\x1f\x8b")
    if len(data) < header.end:
        raise ScanError("truncated", f"the file ends {header.end - len(data)} bytes before its voxels do")
    affine, nominal, found = read_affine(header.fields)
    warnings += found + (["single_slice"] if header.shape[2] == 1 else [])
    sizes = (*header.shape, header.volumes)
    values = nth_volume(np.frombuffer(data, header.dtype, math.prod(sizes), header.offset).reshape(sizes, order="F"), volume)
    return RawScan(_scaled(values, header.fields), affine, nominal=nominal, warnings=tuple(warnings))


def count_volumes(path: Path) -> int:
    """How many volumes follow one another in a file.

    Raises:
        ScanError: As `parse_header`.
    """
    head, _ = read_file(path, length=HEAD_BYTES)
    return parse_header(Inflater(head).take(_HEAD_BYTES) if head[:2] == b"\x1f\x8b" else head, split=True).volumes


def _name_warnings(name: str, *, zipped: bool) -> list[str]:
    claim = claimed_format(name)
    wrong = claim not in ("", "nifti") or (claim == "nifti" and name.lower().endswith(".gz") != zipped)
    return ["wrong_extension"] if wrong else []


def _read_gzip(raw: bytes, *, split: bool) -> tuple[NiftiHeader, bytes, list[str]]:
    stream = Inflater(raw)
    head = stream.take(_HEAD_BYTES)
    try:
        header = parse_header(head, split=split)
        if header.pair:
            raise ScanError("unsupported_format", "a gzipped header of a pair is not read")
        stream.check_ratio(header.end)
    except ScanError:
        stream.drain()
        raise
    data, more = stream.rest(max(0, header.end - len(head)))
    return header, head + data, ["trailing_bytes"] * (more or len(head) > header.end)


def parse_header(head: bytes, *, split: bool = False) -> NiftiHeader:
    """Fields of a NIfTI header, checked before anything is allocated; with `split` it may hold several volumes.

    Raises:
        ScanError: `not_nifti`, `truncated`, `bad_header`, `bad_datatype`, `not_3d`, `bad_size`, `declared_size`.
    """
    fields, order = _fields(head)
    code = int(fields["datatype"])
    if code not in _TYPES:
        raise ScanError("bad_datatype", f"datatype {code} is unknown, complex or colour")
    dtype: np.dtype[np.generic] = np.dtype(_TYPES[code]).newbyteorder(order)
    shape, volumes = _shape([int(size) for size in fields["dim"]], split=split)
    check_declared((*shape, volumes), dtype)
    pair = bytes(fields["magic"]).startswith((b"ni1", b"ni2"))
    size = int(fields["sizeof_hdr"])
    offset = float(fields["vox_offset"])
    if not math.isfinite(offset) or offset != int(offset) or offset < 0:
        raise ScanError("bad_header", "vox_offset is no whole positive number")
    least = 0 if pair else size + 4
    return NiftiHeader(fields, shape, volumes, dtype, max(int(offset), least), pair)


def _fields(head: bytes) -> tuple[NDArray[np.void], Literal["<", ">"]]:
    for order in _ORDERS:
        size = int.from_bytes(head[:4], "little" if order == "<" else "big")
        if size not in (348, 540):
            continue
        if len(head) < size:
            raise ScanError("truncated", "the file ends inside its header")
        dtype = nib.nifti1.header_dtype if size == 348 else nib.nifti2.header_dtype
        fields: NDArray[np.void] = np.frombuffer(head[:size], dtype.newbyteorder(order))[0]
        if bytes(fields["magic"])[:3] in (b"n+1", b"ni1", b"n+2", b"ni2"):
            return fields, order
    raise ScanError("not_nifti", "the header has another size or magic than NIfTI")


def _shape(dim: list[int], *, split: bool) -> tuple[tuple[int, int, int], int]:
    axes = dim[0]
    if not 1 <= axes <= 7:
        raise ScanError("bad_header", f"the header declares {axes} axes")
    return volumes_shape(dim[1 : axes + 1], split=split)


def _scaled(values: Array, fields: NDArray[np.void]) -> Array:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return values
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise ScanError("bad_rescale", "scl_slope or scl_inter is not finite")
    return rescaled(values, slope, inter)


def read_affine(fields: NDArray[np.void]) -> tuple[Affine, bool, list[str]]:
    """Affine in millimetres, whether the units are unknown, and warnings.

    Raises:
        ScanError: `no_geometry`, `left_right_ambiguous`, `bad_orientation`, `bad_pixelspacing`, `bad_header`.
    """
    sform, qform, warnings = None, None, []
    if fields["sform_code"] > 0:
        sform = checked_affine(np.vstack([[fields[f"srow_{axis}"] for axis in "xyz"], [0, 0, 0, 1]]).astype(np.float64))
    if fields["qform_code"] > 0:
        qform = _qform(fields, needed=sform is None)
    affine = qform if sform is None else sform
    if affine is None:
        raise ScanError("no_geometry", "neither sform nor qform has a code: left and right cannot be told")
    if sform is not None and qform is not None and _differ(sform, qform, fields):
        warnings.append("sform_qform_disagree")
    unit = int(fields["xyzt_units"]) & 7
    if unit not in _MILLIMETRES:
        raise ScanError("bad_header", f"xyzt_units {unit} has no meaning")
    affine = np.vstack([affine[:3] * _MILLIMETRES[unit], affine[3:]])
    warnings += affine_warnings(affine)
    return affine, unit == 0, warnings + (["units_converted"] if unit in (1, 3) else [])


def _qform(fields: NDArray[np.void], *, needed: bool) -> Affine | None:
    sizes = np.array(fields["pixdim"][1:4], dtype=np.float64)
    quaternion = np.array([float(fields[f"quatern_{part}"]) for part in "bcd"])
    offset = np.array([float(fields[f"qoffset_{axis}"]) for axis in "xyz"])
    try:
        if not np.isfinite(sizes).all() or sizes.min() <= 0:
            raise ScanError("bad_pixelspacing", "pixdim is zero, negative or not a number")
        if not np.isfinite(quaternion).all() or (quaternion**2).sum() > 1 + 1e-4:
            raise ScanError("bad_orientation", "the quaternion is no rotation")
        if not np.isfinite(offset).all():
            raise ScanError("bad_header", "the offset is not a number")
    except ScanError:
        if needed:
            raise
        return None  # the sform rules, a broken qform beside it says nothing
    real = math.sqrt(max(0.0, 1.0 - float((quaternion**2).sum())))
    rotation = nib.quaternions.quat2mat(np.array([real, *quaternion]))
    sizes[2] *= -1 if fields["pixdim"][0] < 0 else 1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * sizes, offset
    return affine


def _differ(sform: Affine, qform: Affine, fields: NDArray[np.void]) -> bool:
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0 and fields["sform_code"] == fields["qform_code"]:
        raise ScanError("left_right_ambiguous", "sform and qform have one rank and opposite handedness")
    last = np.asarray(fields["dim"][1:4], dtype=np.float64) - 1
    corners = np.array([[i, j, k, 1.0] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
    tolerance = _FORMS_AGREE_MM / _MILLIMETRES.get(int(fields["xyzt_units"]) & 7, 1.0)
    return bool(np.linalg.norm(corners @ (sform - qform).T, axis=1).max() > tolerance)
