"""Plain slices of one series read straight into the volume, several at once, each byte touched as few times as possible."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.dicom_elements import EXPLICIT, IMPLICIT
from medssl.io.dicom_frames import Frame
from medssl.io.dicom_header import DicomFile
from medssl.io.dicom_series import Slice
from medssl.io.files import read_into
from medssl.io.voxels import whole_line
from medssl.volume import Array

_PLAIN = frozenset({IMPLICIT, EXPLICIT})
_THREADS = min(4, os.cpu_count() or 1)  # reading, masking and adding release the interpreter's lock


@dataclass(frozen=True, eq=False)
class PlainStack:
    """Voxels of a series.

    Args:
        values: `(I, J, K)` after rescale, columns to I, rows to J; a view on slices that lie one after the other.
        extremes: Lowest and highest value.
    """

    values: Array
    extremes: tuple[float, float]


class _TooNarrow(Exception):  # noqa: N818 - no failure: the series is read again into wider integers
    """A value after rescale does not fit the type that was tried."""


def is_plain(slices: Sequence[Slice]) -> bool:
    """Whether all slices are uncompressed little-endian integers, one to a file, with a whole slope and intercept."""
    return all(
        each.file.syntax in _PLAIN
        and not each.file.multiframe
        and not each.file.floating
        and each.file.pixels.length is not None
        and (each.file.allocated, each.file.signed, each.file.stored) == _kind(slices[0].file)
        and all(value is None or value.is_integer() for value in (each.frame.slope, each.frame.intercept))
        for each in slices
    )


def _kind(file: DicomFile) -> tuple[int, bool, int]:
    return file.allocated, file.signed, file.stored


def read_plain(slices: Sequence[Slice]) -> PlainStack:
    """The voxels of slices that `is_plain` accepts, as stored or as int16, where that holds them, or int32 or int64.

    Raises:
        ScanError: `truncated`, `changed_while_read`, `unreadable_file`.
    """
    scaled = any(each.frame.slope not in (None, 1.0) or each.frame.intercept not in (None, 0.0) for each in slices)
    for dtype in ("<i2", "<i4", "<i8") if scaled else (_stored_dtype(slices[0].file),):
        try:
            return _read(slices, np.dtype(dtype))
        except _TooNarrow:
            continue
    raise ScanError("value_range", "the values after rescale are larger than any integer")


def _stored_dtype(file: DicomFile) -> str:
    return f"<{'i' if file.signed else 'u'}{file.allocated // 8}"


def _read(slices: Sequence[Slice], dtype: np.dtype[np.integer]) -> PlainStack:
    file = slices[0].file
    volume: NDArray[np.integer] = np.empty((len(slices), file.rows, file.columns), dtype)

    def fill(first: int) -> tuple[float, float]:
        stored: NDArray[np.integer] = np.empty((file.rows, file.columns), _stored_dtype(file))  # warm for all slices of this thread
        ends: list[tuple[float, float]] = []
        for number in range(first, len(slices), _THREADS):
            _read_stored(slices[number].file, stored)
            ends.append(_fill(volume[number], stored, slices[number].frame))
        return min(low for low, _ in ends), max(high for _, high in ends)

    with ThreadPoolExecutor(_THREADS) as pool:
        extremes = list(pool.map(fill, range(min(_THREADS, len(slices)))))
    low, high = min(pair[0] for pair in extremes), max(pair[1] for pair in extremes)
    return PlainStack(volume.transpose(2, 1, 0), (low, high))


def _fill(plane: NDArray[np.integer], stored: NDArray[np.integer], frame: Frame) -> tuple[float, float]:
    """Put the rescaled values of a slice into its plane; returns the lowest and the highest."""
    slope = 1.0 if frame.slope is None else frame.slope
    intercept = 0.0 if frame.intercept is None else frame.intercept
    ends = sorted(float(end) * slope + intercept for end in (stored.min(), stored.max()))
    limits = np.iinfo(plane.dtype)
    if ends[0] < limits.min or ends[1] > limits.max:
        raise _TooNarrow
    whole_line(stored, int(slope), int(intercept), plane.dtype, out=plane)
    return ends[0], ends[1]


def _read_stored(file: DicomFile, stored: NDArray[np.integer]) -> None:
    """Fill `(rows, columns)` with stored values, bits above BitsStored masked and the sign extended."""
    read_into(file.path, stored.data.cast("B"), start=file.pixels.offset, stamp=file.stamp)
    spare = file.allocated - file.stored
    if spare and file.signed:
        np.right_shift(np.left_shift(stored, spare, out=stored), spare, out=stored)
    elif spare:
        np.bitwise_and(stored, stored.dtype.type((1 << file.stored) - 1), out=stored)
