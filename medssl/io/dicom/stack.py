"""Plain slices of one series read straight into the volume, several at once, each byte touched as few times as possible."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.dicom.elements import EXPLICIT, IMPLICIT
from medssl.io.dicom.header import DicomFile
from medssl.io.dicom.series import Slice
from medssl.io.files import read_into
from medssl.io.voxels import whole_line
from medssl.volume import Array

_PLAIN = frozenset({IMPLICIT, EXPLICIT})
_BLOCK = 4 << 20  # bytes: stays in the cache, and is long enough that threads seldom wait for the interpreter's lock


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


def read_plain(slices: Sequence[Slice]) -> Array:
    """Values `(I, J, K)` after rescale of slices that `is_plain` accepts, columns to I, rows to J; a view on slices one after the other.

    They are as stored, or int16 where that holds them, or int32 or int64.

    Raises:
        ScanError: `truncated`, `changed_while_read`, `unreadable_file`.
    """
    scaled = any(_line(each) != (1, 0) for each in slices)
    for dtype in ("<i2", "<i4", "<i8") if scaled else (_stored_dtype(slices[0].file),):
        try:
            return _read(slices, np.dtype(dtype)).transpose(2, 1, 0)
        except _TooNarrow:
            continue
    raise ScanError("value_range", "the values after rescale are larger than any integer")


def _line(image: Slice) -> tuple[int, int]:
    """Slope and intercept, which are whole."""
    slope, intercept = image.frame.slope, image.frame.intercept
    return 1 if slope is None else int(slope), 0 if intercept is None else int(intercept)


def _stored_dtype(file: DicomFile) -> str:
    return f"<{'i' if file.signed else 'u'}{file.allocated // 8}"


def _read(slices: Sequence[Slice], dtype: np.dtype[np.integer]) -> NDArray[np.integer]:
    """Values `(slices, rows, columns)`: one thread reads a block of slices while another one makes values of the block before."""
    file = slices[0].file
    volume: NDArray[np.integer] = np.empty((len(slices), file.rows, file.columns), dtype)
    kind = np.dtype(_stored_dtype(file))
    step = max(1, _BLOCK // (file.rows * file.columns * kind.itemsize))
    with ThreadPoolExecutor(1) as other:
        filled = []
        for first in range(0, len(slices), step):
            block, planes = slices[first : first + step], volume[first : first + step]
            stored = planes.view(kind) if kind.itemsize == dtype.itemsize else np.empty(planes.shape, kind)
            for each, plane in zip(block, stored, strict=True):
                read_into(each.file.path, plane.data.cast("B"), start=each.file.pixels.offset, stamp=each.file.stamp)
            filled.append(other.submit(_fill, planes, stored, block))
        for done in filled:
            done.result()
    return volume


def _fill(planes: NDArray[np.integer], stored: NDArray[np.integer], block: Sequence[Slice]) -> None:
    """Put the rescaled values of some slices into their planes; the stored ones may lie in the same place."""
    file, lines = block[0].file, [_line(each) for each in block]
    _mask(stored, file)
    parts = [(planes, stored, lines[0])] if len(set(lines)) == 1 else list(zip(planes, stored, lines, strict=True))
    for part, values, line in parts:
        _check_fits(values, file, line, np.iinfo(part.dtype))
        if line != (1, 0) or part.itemsize != values.itemsize:
            whole_line(values, *line, out=part)


def _mask(stored: NDArray[np.integer], file: DicomFile) -> None:
    """Mask bits above BitsStored, extend the sign."""
    spare = file.allocated - file.stored
    if spare and file.signed:
        np.right_shift(np.left_shift(stored, spare, out=stored), spare, out=stored)
    elif spare:
        np.bitwise_and(stored, stored.dtype.type((1 << file.stored) - 1), out=stored)


def _check_fits(stored: NDArray[np.integer], file: DicomFile, line: tuple[int, int], limits: "np.iinfo[np.integer]") -> None:
    """Whether all values after rescale fit; looks at the values only where the number of bits leaves a doubt."""
    slope, intercept = line
    lowest = -(1 << file.stored >> 1) if file.signed else 0
    for low, high in ((lowest, lowest + (1 << file.stored) - 1), (int(stored.min()), int(stored.max()))):
        ends = sorted((low * slope + intercept, high * slope + intercept))
        if limits.min <= ends[0] and ends[1] <= limits.max:
            return
    raise _TooNarrow
