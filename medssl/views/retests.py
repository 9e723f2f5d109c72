"""Scans as they might come back from a second visit with nothing new in them: mirrored, or moved and resampled there and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from medssl.volume import Volume

Float = NDArray[np.float32]
_FINER = 1.25  # pixels of the grid in between, for one of the scan


@dataclass(frozen=True)
class Retest:
    """One way to repeat a scan.

    Args:
        name: Stable name, as in files and tables.
        what: What is done, as a phrase.
        mirrored: Axis of (I, J, K) along which the scan lies the other way round afterwards, None where it lies as before.
        change: The values (C, I, J, K) of the repeated scan.
    """

    name: str
    what: str
    mirrored: int | None
    change: Callable[[Float], Float]

    def __call__(self, volume: Volume) -> Volume:
        """The repeated scan on the same grid, in float32."""
        return replace(volume, array=np.ascontiguousarray(self.change(np.asarray(volume.array, dtype=np.float32)), dtype=np.float32))

    def mask(self, lesion: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where the lesion (I, J, K) lies in the repeated scan."""
        return lesion if self.mirrored is None else np.flip(lesion, self.mirrored)


def half_voxel(image: Float) -> Float:
    """Half a voxel along I and J and back, linear both times."""
    for axis in (1, 2):
        there = _halfway(image, axis, ahead=True)
        image = _halfway(there, axis, ahead=False)
    return image


def resampled(image: Float) -> Float:
    """Onto a grid with 1.25 times as many pixels along I and J and back, linear both times."""
    finer = zoom(image, (1, _FINER, _FINER, 1), order=1, mode="nearest", grid_mode=True)
    back = [size / other for size, other in zip(image.shape, finer.shape, strict=True)]
    return np.asarray(zoom(finer, back, order=1, mode="nearest", grid_mode=True), dtype=np.float32)


def _halfway(image: Float, axis: int, *, ahead: bool) -> Float:
    """Means of each voxel and its next one, or its last one; the edges repeat."""
    places = np.arange(image.shape[axis])
    others = (places + (1 if ahead else -1)).clip(0, len(places) - 1)
    return np.asarray((image + image.take(others, axis=axis)) / 2, dtype=np.float32)


RETESTS: dict[str, Retest] = {
    retest.name: retest
    for retest in (
        Retest("mirrored_i", "left and right exchanged", 0, lambda image: image[:, ::-1]),
        Retest("mirrored_j", "front and back exchanged", 1, lambda image: image[:, :, ::-1]),
        Retest("half_voxel", "moved by half a voxel in the plane and back, linear", None, half_voxel),
        Retest("resampled", "onto 1.25 times as many pixels in the plane and back, linear", None, resampled),
    )
}
"""By name, in the order of the panel."""
