"""The fingerprint of a scan's voxels, and the checks that every format shares."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.volume import Affine, Array, Volume

_INT32 = np.iinfo(np.int32)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CHUNK = 1 << 22
MAX_VOXEL_BYTES = 4 << 30  # no scan of one patient is larger; more is a lie in the header


@dataclass(frozen=True, eq=False)
class RawScan:
    """A scan as its format gives it, before the common checks.

    Args:
        values: `(I, J, K)` values after rescale.
        affine: 4 x 4, voxel index to RAS+ millimetres.
        modality: DICOM modality code or empty.
        nominal: No physical geometry is known.
        warnings: Reason codes of an accepted scan.
    """

    values: Array
    affine: Affine
    modality: str = ""
    nominal: bool = False
    warnings: tuple[str, ...] = field(default=())


def voxels_sha256(volume: Volume) -> str:
    """Fingerprint over `rint(values)` as little-endian int32 in C order, axes closest to RAS, non-finite values as 0.

    A volume of one channel is hashed as `[x, y, z]`; several channels follow one another.
    """
    digest = hashlib.sha256()
    for channel in volume.to_ras().array:
        planes = max(1, _CHUNK // max(1, channel[0].size))
        for start in range(0, len(channel), planes):
            digest.update(_as_int32(channel[start : start + planes]).tobytes())
    return digest.hexdigest()


def exact_sha256(volume: Volume) -> str:
    """The fingerprint of `voxels_sha256` where all values are whole numbers, else a digest over float32, so that parts of one count."""
    array = volume.to_ras().array
    if array.dtype.kind != "f" or all(np.array_equal(np.rint(channel), channel) for channel in array):
        return voxels_sha256(volume)
    digest = hashlib.sha256(b"float32")
    for channel in array:
        digest.update(np.ascontiguousarray(channel, dtype="<f4").tobytes())
    return digest.hexdigest()


def _as_int32(values: Array) -> NDArray[np.int32]:
    if values.dtype.kind == "f":
        values = np.rint(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    if values.dtype.itemsize > 2:
        values = np.clip(values, _INT32.min, _INT32.max)
    return values.astype("<i4")


def finish(scan: RawScan, *, constant_allowed: bool = False, fingerprint: bool = True) -> tuple[Volume, str, tuple[str, ...]]:
    """Check the values, bring them to the closest RAS order and to a type that the rest of medssl reads.

    Args:
        scan: What a format gave.
        constant_allowed: All voxels may be equal.
        fingerprint: Make the fingerprint, which takes longer than all the rest for a large scan.

    Returns:
        The volume (a view where no value changes), its fingerprint (over the values before any narrowing to float32; empty where it was
        not asked for), and the warnings.

    Raises:
        ScanError: `constant_image`, `nonfinite_voxels`, `value_range`, `bad_orientation`.
    """
    extra = check_values(scan.values, constant_allowed=constant_allowed)
    turned = Volume(scan.values[None], scan.affine, modality=scan.modality, nominal=scan.nominal).to_ras()
    sha256 = voxels_sha256(turned) if fingerprint else ""
    volume = Volume(narrow(turned.array), turned.affine, modality=scan.modality, nominal=scan.nominal)
    return volume, sha256, scan.warnings + extra


def check_values(values: Array, *, constant_allowed: bool) -> tuple[str, ...]:
    """Warnings about the values themselves.

    Raises:
        ScanError: `bad_size`, `nonfinite_voxels` when none is finite, `value_range`, `constant_image`.
    """
    if values.size == 0:
        raise ScanError("bad_size", "the scan has no voxel")
    if values.dtype.kind == "f":
        return _check_floats(values, constant_allowed=constant_allowed)
    if not constant_allowed and _is_constant(values):  # and no sum of integers of 64 bits overflows
        raise ScanError("constant_image", "all voxels are equal")
    return ()


def _check_floats(values: Array, *, constant_allowed: bool) -> tuple[str, ...]:
    mask = np.isfinite(values)
    finite = values if mask.all() else values[mask]
    if finite.size == 0:
        raise ScanError("nonfinite_voxels", "no voxel is a finite number")
    low, high = float(finite.min()), float(finite.max())
    if max(abs(low), abs(high)) * values.size > _FLOAT32_MAX:
        raise ScanError("value_range", "the values are so large that their sum overflows")
    if low == high and not constant_allowed:
        raise ScanError("constant_image", "all voxels are equal")
    return () if finite is values else ("nonfinite_voxels",)


def _is_constant(values: Array) -> bool:
    """Whether all values are equal; looks no further than the first plane in memory where two differ."""
    planes = np.moveaxis(values, int(np.argmax(np.abs(values.strides))), 0)
    return not any((plane != planes.flat[0]).any() for plane in planes)


def narrow(values: Array) -> Array:
    """Values as a native type of at most 32 bits: integers where they fit, float32 otherwise."""
    dtype = values.dtype.newbyteorder("=")
    if dtype.kind in "iu" and (dtype.itemsize < 4 or dtype == np.int32):
        return values.astype(dtype, copy=False)
    if dtype.kind in "iu" and int(values.min()) >= _INT32.min and int(values.max()) <= _INT32.max:
        return values.astype(np.int32)
    return values.astype(np.float32, copy=False)


def rescaled(stored: Array, slope: float, intercept: float) -> Array:
    """`stored * slope + intercept`, kept integer (int16 where it fits, else int32) when slope and intercept are whole."""
    if slope == 1 and intercept == 0:
        return stored
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        ends = [float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept]
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return whole_line(stored, int(slope), int(intercept), out=np.empty(stored.shape, dtype))
    return stored.astype(np.float64) * slope + intercept


def whole_line(stored: Array, slope: int, intercept: int, *, out: NDArray[np.integer]) -> NDArray[np.integer]:
    """`stored * slope + intercept` of integers, put into `out`, whose type holds every result; it may be the place of the stored values.

    Arithmetic is modulo 2^bits, so that a value that wraps on the way comes back right.
    """
    bits = 8 * out.itemsize
    factor, offset = (np.array(value % (1 << bits), f"u{out.itemsize}").view(out.dtype) for value in (slope, intercept))
    if stored.itemsize == out.itemsize and stored.dtype.isnative:
        stored = stored.view(out.dtype)
    if slope != 1:
        stored = np.multiply(stored, factor, out=out, dtype=out.dtype, casting="unsafe")
    np.add(stored, offset, out=out, dtype=out.dtype, casting="unsafe")
    return out


def upright(picture: Array) -> tuple[Array, Affine]:
    """A picture `(rows, columns)` as `(I, J, 1)` with I to the left and J upwards, and a placeholder affine.

    A picture shows the patient's right on its left, as every screen and figure does: `array.T[::-1, ::-1]` of a slice is the picture.
    """
    return picture.T[::-1, ::-1, None], np.eye(4)
