"""What all formats of one voxel grid share: sizes, the affine, numbers and voxels written as text, checked before use."""

import math
import re
from collections.abc import Sequence

import numpy as np

from medssl.errors import ScanError
from medssl.io.files import claimed_format
from medssl.io.voxels import MAX_VOXEL_BYTES
from medssl.volume import Affine, Array

_MAX_SPACING_MM, _MIN_SPACING_MM = 200.0, 1e-6
_SHEAR_COSINE = 2e-3
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_MAX_VOLUMES = 4096
_MAX_TEXT_VOXELS = 4 << 20  # a larger volume is never written as decimal numbers


def volume_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Three sizes, further axes of one voxel left out.

    Raises:
        ScanError: `bad_size`, `not_3d`.
    """
    if not sizes or min(sizes) < 1:
        raise ScanError("bad_size", "a dimension is zero or negative")
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]):
        raise ScanError("not_3d", f"one volume of three axes is wanted, found {'x'.join(map(str, sizes))}")
    return sizes[0], sizes[1], sizes[2]


def volumes_shape(sizes: Sequence[int], *, split: bool) -> tuple[tuple[int, int, int], int]:
    """Three sizes, and how many such volumes follow one another along the fourth axis: one, unless they may be split.

    Raises:
        ScanError: `bad_size`, `not_3d`, `declared_size` where the volumes are implausibly many.
    """
    if not split or len(sizes) < 4:
        return volume_shape(sizes), 1
    shape = volume_shape([*sizes[:3], *sizes[4:]])
    if sizes[3] < 1:
        raise ScanError("bad_size", "a dimension is zero or negative")
    if sizes[3] > _MAX_VOLUMES:
        raise ScanError("declared_size", f"the header declares {sizes[3]} volumes")
    return shape, sizes[3]


def nth_volume(values: Array, number: int | None) -> Array:
    """One of the volumes `(I, J, K, T)` of a file; the only one where it is None.

    Raises:
        ScanError: `changed_while_read`, where the file had more volumes when it was found.
    """
    number = number or 0
    if number >= values.shape[3]:
        raise ScanError("changed_while_read", "the file has fewer volumes than when it was found")
    return values[..., number]


def check_declared(shape: Sequence[int], dtype: np.dtype[np.generic]) -> int:
    """Bytes of a grid, held against the cap before anything is allocated.

    Raises:
        ScanError: `declared_size`.
    """
    declared = math.prod(shape) * dtype.itemsize
    if declared > MAX_VOXEL_BYTES:
        raise ScanError("declared_size", f"the header declares {declared >> 20} MiB")
    return declared


def checked_affine(affine: Affine) -> Affine:
    """The same affine.

    Raises:
        ScanError: `bad_orientation` where the matrix is no number or singular, `bad_header` where the offset is no number.
    """
    matrix = affine[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(matrix).all() or lengths.min() == 0 or abs(np.linalg.det(matrix / lengths)) < 1e-4:
        raise ScanError("bad_orientation", "the matrix is not a number or singular")
    if not np.isfinite(affine).all():
        raise ScanError("bad_header", "the offset is not a number")
    return affine


def affine_warnings(affine: Affine) -> list[str]:
    """`sheared_affine`, where the axes of an affine in millimetres are not orthogonal.

    Raises:
        ScanError: `bad_pixelspacing`.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > _MAX_SPACING_MM or spacing.min() < _MIN_SPACING_MM:
        raise ScanError("bad_pixelspacing", "the voxel size is absurd")
    unitary = affine[:3, :3] / spacing
    return ["sheared_affine"] if np.abs(unitary.T @ unitary - np.eye(3)).max() > _SHEAR_COSINE else []


def name_warnings(name: str, kind: str) -> list[str]:
    """`wrong_extension`, where a file's name promises another format."""
    return [] if claimed_format(name) in ("", kind) else ["wrong_extension"]


def whole_numbers(text: str) -> list[int]:
    """Blank-separated whole numbers.

    Raises:
        ScanError: `bad_header`.
    """
    if not all(_WHOLE.fullmatch(part) for part in text.split()):
        raise ScanError("bad_header", "a whole number is none")
    return [int(part) for part in text.split()]


def numbers(text: str, count: int, code: str = "bad_header") -> list[float]:
    """Blank- or comma-separated numbers, exactly `count` of them.

    Raises:
        ScanError: The given code.
    """
    parts = text.replace(",", " ").split()
    if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ScanError(code, f"found no {count} numbers")
    return [float(part) for part in parts]


def text_voxels(data: bytes, shape: Sequence[int], dtype: np.dtype[np.generic]) -> tuple[Array, bool]:
    """Voxels written as decimal numbers, and whether more of them follow.

    Raises:
        ScanError: `bad_header`, `truncated`, `unsupported_format` where they are too many.
    """
    count = math.prod(shape)
    if count > _MAX_TEXT_VOXELS:
        raise ScanError("unsupported_format", f"{count} voxels written as text are not read")
    words = data.replace(b",", b" ").split(maxsplit=count)
    if len(words) < count:
        raise ScanError("truncated", f"the text ends {count - len(words)} voxels too early")
    try:
        values: Array = np.array([float(word) if dtype.kind == "f" else int(word) for word in words[:count]], dtype=dtype)
    except (ValueError, OverflowError) as error:
        raise ScanError("bad_header", "a voxel is no number of the declared type") from error
    return values.reshape(shape, order="F"), len(words) > count
