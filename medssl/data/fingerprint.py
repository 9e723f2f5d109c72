"""Near-duplicates: bits by which two scans are known as the same picture although their voxels differ.

A scan is averaged down to a coarse grid twice, over its whole field of view and over the box around its object, which a shift, a margin or
another matrix leaves alike. Each coarse picture is projected on random directions, and the signs are kept: the share of signs in which
two scans differ tells their correlation (Charikar, 2002, https://doi.org/10.1145/509907.509965). No detail finer than the grid is in them.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.volume import Array, Volume

Bits = NDArray[np.uint64]
Float = NDArray[np.float32]

THRESHOLD = 0.99  # scans of two patients stay below 0.98, a scan saved again lies above 0.995; measured in docs/store.md
MIRRORS = ("", "I", "J", "K")  # the axis along which the second scan was mirrored

_VOLUME, _FLAT = (16, 16, 8), (32, 32, 2)  # coarse grids of equal size
_FLAT_SLICES = 4  # scans with fewer slices are pictures
_SIGNS = 4096
_WORDS = _SIGNS // 64
_FIRST = 8  # words that are compared first
_FIRST_LIMIT = 0.09  # far above the share at the threshold, so that chance loses no pair
_EDGE = 0.2  # of a profile's height
_ROWS = 64  # scans compared at once


@dataclass(frozen=True)
class Alike:
    """Two scans of nearly the same content.

    Args:
        first: Index in the first set.
        second: Index in the second set.
        correlation: Estimated from the signs.
        mirrored: `I`, `J` or `K` when one is the mirror image of the other, else empty.
    """

    first: int
    second: int
    correlation: float
    mirrored: str


def fingerprint(volume: Volume) -> Bits:
    """The signs of a scan.

    Args:
        volume: A scan; its first channel counts, of those that are not constant (a sequence that a scan lacks).

    Returns:
        (2, 4, 64) words: of the whole field of view and of the object, each as it is and mirrored along I, J, K.
    """
    channels = volume.to_ras().array
    values = _clipped(next((channel for channel in channels if (channel != channel[0, 0, 0]).any()), channels[0]))
    grid = _FLAT if values.shape[2] < _FLAT_SLICES else _VOLUME
    whole = [(0.0, float(size)) for size in values.shape]
    boxes = (whole, [_edges(values.mean(axis=_others(axis))) for axis in range(3)])
    coarse = [_averaged(values, grid, box) for box in boxes]
    turned = np.stack([[picture, *(np.flip(picture, axis) for axis in range(3))] for picture in coarse])
    flat = turned.reshape(2 * len(MIRRORS), -1)
    signs = (flat - flat.mean(axis=-1, keepdims=True)) @ _directions() > 0
    return np.packbits(signs, axis=-1).view(np.uint64).reshape(2, len(MIRRORS), _WORDS)


def _clipped(values: Array) -> Float:
    """Values between robust ends, so that a hot spot or a lone dark voxel decides nothing."""
    clipped = np.array(values, dtype=np.float32)
    sample = clipped[tuple(slice(None, None, max(1, size // 48)) for size in clipped.shape)]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (1, 99)) if sample.size else (0.0, 1.0)
    if not np.isfinite(clipped).all():
        np.nan_to_num(clipped, copy=False, nan=float(low), posinf=float(high), neginf=float(low))
    return np.clip(clipped, low - 0.2 * (high - low), high, out=clipped)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(sorted({0, 1, 2} - {axis}))


def _edges(profile: Float) -> tuple[float, float]:
    """Where a profile first and last crosses a fifth of its height, between voxels; the ends where it is short."""
    size = len(profile)
    height = float(np.ptp(profile))
    if size < _FLAT_SLICES or height == 0:
        return 0.0, float(size)
    share = (profile - profile.min()) / height
    inside = np.flatnonzero(share >= _EDGE)
    first, last = int(inside[0]), int(inside[-1])
    low = first - (share[first] - _EDGE) / (share[first] - share[first - 1]) if first > 0 else -0.5
    high = last + (share[last] - _EDGE) / (share[last] - share[last + 1]) if last < size - 1 else size - 0.5
    return float(low) + 0.5, float(high) + 0.5


def _averaged(values: Float, grid: tuple[int, int, int], box: Sequence[tuple[float, float]]) -> Float:
    """The mean of the values in each cell of a grid over a box."""
    i, j, k = (_weights(size, cells, *ends) for size, cells, ends in zip(values.shape, grid, box, strict=True))
    thin = values @ k.T
    return np.asarray(np.einsum("xi,yj,ijk->xyk", i, j, thin, optimize=True), dtype=np.float32)


def _weights(size: int, cells: int, low: float, high: float) -> Float:
    """(cells, size): the share of each voxel in each of the equal cells between two places."""
    edges, voxels = np.linspace(low, high, cells + 1), np.arange(size)
    overlap = np.clip(np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels), 0, None)
    return np.asarray(overlap / np.maximum(overlap.sum(axis=1, keepdims=True), 1e-9), dtype=np.float32)


@functools.cache
def _directions() -> Float:
    """(cells, signs) of -1 and 1, the same on every machine and with every version of numpy."""
    cells = int(np.prod(_VOLUME))
    stream = hashlib.shake_256(b"medssl fingerprint 1").digest(cells * _SIGNS // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(cells, _SIGNS)
    return bits.astype(np.float32) * 2 - 1


def alike(first: Bits, second: Bits | None = None, *, threshold: float = THRESHOLD) -> Iterator[Alike]:
    """The pairs of scans whose content correlates by more than a threshold, in the order of their indices.

    Args:
        first: (N, 2, 4, 64) fingerprints.
        second: (M, 2, 64) signs of scans as they are. None compares the first set with itself; a pair comes up to twice, since mirroring
            one scan or the other gives estimates of their own.
        threshold: Least correlation.
    """
    within = second is None
    upright = first[:, :, 0] if second is None else second
    most = np.arccos(threshold) / np.pi
    for start in range(0, len(first), _ROWS):
        rows = first[start : start + _ROWS]
        best = np.full((len(rows), len(upright)), 1.0)
        mirror = np.zeros(best.shape, np.intp)
        for box in range(2):
            for turn in range(len(MIRRORS)):
                _keep_least(best, mirror, rows[:, box, turn], upright[:, box], turn)
        for row, column in np.argwhere(best <= most):
            if not within or start + row != column:
                turn = int(mirror[row, column])
                yield Alike(start + int(row), int(column), float(np.cos(np.pi * best[row, column])), MIRRORS[turn])


def _keep_least(best: NDArray[np.float64], mirror: NDArray[np.intp], left: Bits, right: Bits, turn: int) -> None:
    """Lower `best` to the share of differing signs where it is less; most pairs are left out after a few words."""
    near = np.argwhere(_share(left[:, None, :_FIRST], right[None, :, :_FIRST]) <= _FIRST_LIMIT)
    row, column = near[:, 0], near[:, 1]
    share = _share(left[row], right[column])
    less = share < best[row, column]
    best[row[less], column[less]] = share[less]
    mirror[row[less], column[less]] = turn


def _share(left: Bits, right: Bits) -> NDArray[np.float64]:
    return np.asarray(np.bitwise_count(left ^ right).sum(axis=-1) / (64 * left.shape[-1]), dtype=np.float64)
