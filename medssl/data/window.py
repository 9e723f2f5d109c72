"""What of an array lies in a window around a centre, and what is missing there."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)
Window = tuple[slice, slice, slice, slice]


def window_at(
    shape: tuple[int, int, int, int], centre: Sequence[int], size: tuple[int, int, int], *, keep: tuple[bool, bool, bool]
) -> tuple[Window, list[tuple[int, int]]]:
    """Slices of what a window of a size around a centre has of an array, and what is missing on both sides of each axis.

    Along axes with `keep` the window is moved inside the array; elsewhere edges will repeat.
    """
    parts, margins = [slice(None)], [(0, 0)]
    for length, middle, width, inside in zip(shape[1:], centre, size, keep, strict=True):
        start = int(middle) - width // 2
        if inside and length >= width:
            start = min(max(start, 0), length - width)
        elif inside:
            start = -((width - length) // 2)
        first, last = min(max(start, 0), length - 1), min(max(start + width, 1), length)
        parts.append(slice(first, last))
        margins.append((first - start, start + width - last))
    channels, i, j, k = parts
    return (channels, i, j, k), margins


def padded(window: NDArray[Value], margins: list[tuple[int, int]]) -> NDArray[Value]:
    """A part of an array with its edges repeated where something is missing."""
    return np.pad(window, margins, mode="edge") if any(before or after for before, after in margins) else window
