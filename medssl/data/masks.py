"""Masks that tell classes apart: which values they hold, and how they are kept as one plane of bits a class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_CLASSES = 16  # a mask of more values numbers its lesions, or is no drawing at all, and counts as lesion against none
_LARGEST = 255
_MOST_OFF = 0.1  # of what is not 0; where more is no whole number, the mask is soft
_ROUNDING = 1e-3  # values this near to a whole number are that number
LESION = (1, _LARGEST)  # what masks of lesion against none hold


def drawn(mask: NDArray[Any], *, lossy: bool = False) -> tuple[NDArray[Any], bool]:
    """A mask of whole numbers, and whether it was one.

    Fractions and shades of grey become 1 where they reach half of their range: probabilities, a soft brush (most of it 255), what a lossy
    picture makes of a drawing. Where nearly all is whole, as with classes whose edges were interpolated, the rest is rounded. Rounding left
    by a scale factor is no fraction.

    Args:
        mask: Values >= 0, 0 where there is nothing.
        lossy: It comes from a format that does not keep values.
    """
    if mask.dtype.kind != "f":
        return (_half(mask), False) if _is_shaded(mask, lossy=lossy) else (mask, True)
    mask = np.nan_to_num(mask, nan=0.0, posinf=0.0, neginf=0.0)
    whole = np.rint(mask)
    off = np.abs(mask - whole) > _ROUNDING
    if not off.any():
        return (_half(whole), False) if _is_shaded(whole, lossy=lossy) else (whole, True)
    is_soft = whole.max() <= 1 or np.count_nonzero(off) > _MOST_OFF * np.count_nonzero(mask)
    return (_half(mask) if is_soft else whole), False


def _half(mask: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(mask >= mask.max() / 2, dtype=np.uint8)


def _is_shaded(mask: NDArray[Any], *, lossy: bool) -> bool:
    """Whether a mask of whole numbers holds shades of grey: numbers of lesions are as many, but few of their voxels are 255."""
    top = mask.max(initial=0)
    if lossy or top != _LARGEST:
        return lossy and bool(top > 1)
    inside = mask[mask > 0]
    return len(np.unique(inside)) > _MOST_CLASSES and 2 * int(np.count_nonzero(inside == _LARGEST)) > len(inside)


def class_values(mask: NDArray[Any]) -> tuple[int, ...]:
    """The values of a mask that tells classes apart, sorted; empty for a mask of lesion against none.

    Args:
        mask: Whole numbers, 0 where there is nothing; a mask of 1 alone or of 255 alone tells lesion from none.
    """
    found = np.unique(mask[mask > 0])
    if len(found) > _MOST_CLASSES or any(value > _LARGEST or value != int(value) for value in found):
        return ()
    values = tuple(int(value) for value in found)
    return () if not values or (len(values) == 1 and values[0] in LESION) else values


class Bits:
    """A mask of which a part can be read without the rest.

    Args:
        packed: (P, ...) planes of bits with eight voxels of one axis in a byte: one plane a class, or one for lesion against none.
        shape: (1, I, J, K) of the mask.
        axis: The axis that is packed.
        values: What the mask holds where the bits of each plane are set.
    """

    def __init__(self, packed: NDArray[np.uint8], shape: tuple[int, int, int, int], *, axis: int, values: Sequence[int] = (1,)) -> None:
        self.packed, self.shape, self.axis, self.values = packed, shape, axis, tuple(values)

    @classmethod
    def of(cls, mask: NDArray[np.uint8], *, axis: int) -> "Bits":
        """Pack a (1, I, J, K) mask; what is not 0 and 1 alone gets a plane for each value."""
        one, i, j, k = mask.shape
        values = tuple(np.unique(mask[mask > 0]).tolist()) or (1,)
        planes = mask if values == (1,) else np.concatenate([mask == value for value in values])
        return cls(np.packbits(planes, axis=axis), (one, i, j, k), axis=axis, values=values)

    def __getitem__(self, parts: tuple[slice, ...]) -> NDArray[np.uint8]:
        """The voxels of four slices with start and stop: 1 where any class is, else 0."""
        return self.only(parts, self.values)

    def only(self, parts: tuple[slice, ...], values: Sequence[int]) -> NDArray[np.uint8]:
        """The voxels of four slices: 1 where the mask holds one of `values`, else 0."""
        wanted = parts[self.axis].indices(self.shape[self.axis])
        first = wanted[0] // 8
        chosen = [*parts]
        chosen[0] = slice(None)
        chosen[self.axis] = slice(first, -(-wanted[1] // 8))
        packed = self.packed[tuple(chosen)]
        if len(self.values) > 1 or tuple(values) != self.values:
            planes = [plane for plane, value in zip(packed, self.values, strict=True) if value in values]
            packed = np.bitwise_or.reduce(planes)[None] if planes else np.zeros_like(packed[:1])
        voxels = np.unpackbits(packed, axis=self.axis)
        chosen = [slice(None)] * 4
        chosen[self.axis] = slice(wanted[0] - 8 * first, wanted[1] - 8 * first)
        return voxels[tuple(chosen)]

    def valued(self, parts: tuple[slice, ...]) -> NDArray[np.uint8]:
        """The values of the mask at four slices."""
        voxels = [np.uint8(value) * self.only(parts, (value,)) for value in self.values]
        return np.asarray(np.max(voxels, axis=0), dtype=np.uint8)

    @property
    def everywhere(self) -> tuple[slice, slice, slice, slice]:
        """The slices of the whole mask."""
        one, i, j, k = (slice(0, size) for size in self.shape)
        return one, i, j, k

    def whole(self) -> NDArray[np.uint8]:
        """The whole (1, I, J, K) mask: 1 where any class is, else 0."""
        return self[self.everywhere]

    def counts(self) -> dict[int, int]:
        """Voxels of each value."""
        return {value: int(np.bitwise_count(plane).sum()) for value, plane in zip(self.values, self.packed, strict=True)}
