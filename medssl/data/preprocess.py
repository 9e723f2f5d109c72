"""The one preprocessing: a frozen description, applied in the same way for training and for scoring.

It turns a scan in RAS order into float32 values on the grid that the network expects; `carry_back` brings maps back to the scan's own grid.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from medssl.data.masks import class_values
from medssl.errors import ConfigError
from medssl.io.options import AS_STORED, ReadOptions
from medssl.volume import Volume

Float = NDArray[np.float32]
Grid = tuple[int, int, int]
Box = tuple[slice, slice, slice]

_CLIP = 6.0  # z-scores beyond this are coil hot spots or metal, not tissue
_NOISE = 0.005  # share of a plane that may be bright and is background all the same
_MARGIN = 2  # voxels left around the foreground
_WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Preprocess:
    """Grid and intensity of what a network sees.

    Args:
        spacing_mm: Target voxel size along I, J, K; a 0 keeps the scan's own. None leaves the grid as it is.
        matrix: Target number of voxels along I and J, for scans without physical geometry; excludes `spacing_mm`.
        intensity: `zscore` over the foreground (MR), `window` to 0..1 (CT, needs `window_hu`), or `percentile` 1..99 of the foreground
            to 0..1.
        window_hu: Lower and upper bound in HU.
        crop_foreground: Leave out what lies around the foreground; where it lay is kept in the affine.
        read: How scans are read before that.

    Raises:
        ConfigError: Settings that exclude each other or are out of range.
    """

    spacing_mm: tuple[float, float, float] | None = None
    matrix: tuple[int, int] | None = None
    intensity: Literal["zscore", "window", "percentile"] = "zscore"
    window_hu: tuple[float, float] | None = None
    crop_foreground: bool = False
    read: ReadOptions = AS_STORED

    def __post_init__(self) -> None:
        if self.spacing_mm and self.matrix:
            raise ConfigError("preprocess takes spacing_mm or matrix, found both; keep one")
        if self.spacing_mm and min(self.spacing_mm) < 0:
            raise ConfigError(f"spacing_mm must be >= 0, got {self.spacing_mm}")
        if self.intensity == "window" and not (self.window_hu and self.window_hu[0] < self.window_hu[1]):
            raise ConfigError(f"intensity 'window' needs window_hu [low, high] with low < high, got {self.window_hu}")

    def grid(self, volume: Volume) -> Grid:
        """Number of voxels along I, J, K after resampling."""
        i, j, k = volume.shape
        if self.matrix:
            return self.matrix[0], self.matrix[1], k
        if not self.spacing_mm or volume.nominal:
            return volume.shape
        pairs = zip(volume.shape, volume.spacing_mm, self.spacing_mm, strict=True)
        i, j, k = (max(1, round(size * own / (target or own))) for size, own, target in pairs)
        return i, j, k

    def __call__(self, volume: Volume) -> Volume:
        """The scan as the network sees it: `(C, I, J, K)` float32 in RAS order."""
        volume = volume.to_ras()
        box = _foreground(volume) if self.crop_foreground else _WHOLE
        cropped = _crop(volume, box)
        grid = self.grid(cropped)
        array = np.stack([resample(self._scale(channel)[box], grid) for channel in volume.array.astype(np.float32)])
        return Volume(array, _regrid(cropped, grid), volume.modality, volume.nominal)

    def lesion(self, lesion: Volume, prepared: Volume) -> NDArray[np.uint8]:
        """A mask `(1, I, J, K)` on the grid of its prepared scan: its own values where it tells classes apart, else 0 and 1.

        Where the grid changes, a voxel is lesion where half of it is, and of the class that has most of it; a lesion too small for that
        keeps the voxel that holds most of it.

        Args:
            lesion: The mask on the scan's own grid.
            prepared: What the scan became.
        """
        lesion = lesion.to_ras()
        mask, values = lesion.array[0][_place(prepared, lesion)], class_values(lesion.array)
        inside = np.asarray(resample((mask > 0).astype(np.float32), prepared.shape) >= 0.5, dtype=np.uint8)
        if mask.shape != prepared.shape:
            _keep_small(mask > 0, inside)
        inside = inside[None]
        if not values:
            return inside
        shares = [resample((mask == value).astype(np.float32), prepared.shape) for value in values]
        return np.asarray(inside * np.array(values, dtype=np.uint8)[np.argmax(shares, axis=0)], dtype=np.uint8)

    def _scale(self, channel: Float) -> Float:
        channel = np.nan_to_num(channel, nan=0.0, posinf=0.0, neginf=0.0)
        if self.intensity == "window" and self.window_hu:
            low, high = self.window_hu
            return _float32(np.clip((channel - low) / (high - low), 0.0, 1.0))
        if self.intensity == "percentile":
            low, high = np.percentile(_inside(channel), (1, 99))
            return _float32(np.clip((channel - low) / max(high - low, 1e-6), 0.0, 1.0))
        return _zscore(channel)

    def digest(self) -> str:
        """Identity of these settings, for store keys."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """The settings for JSON; ways of reading that nobody chose are left out, so that stores and bundles keep their identity."""
        fields = asdict(self)
        del fields["read"]
        return fields | ({"read": dict(self.read.chosen())} if self.read != AS_STORED else {})

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Self:
        """Rebuild from JSON, where tuples have become lists."""
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        read = settings.pop("read", {})
        return cls(**settings, read=ReadOptions(**read))  # type: ignore[arg-type]


def _keep_small(mask: NDArray[np.bool_], inside: NDArray[np.uint8]) -> None:
    """Mark one voxel for each lesion (connected over corners) that has none on the new grid over the same field of view."""
    from scipy.ndimage import find_objects, label

    labels, count = label(mask, np.ones((3, 3, 3)))
    axes = [((np.arange(old) + 0.5) * new / old).astype(int) for old, new in zip(mask.shape, inside.shape, strict=True)]
    kept = np.unique(labels[inside[np.ix_(*axes)] > 0])
    boxes = find_objects(labels) if count > np.count_nonzero(kept) else []
    for number in np.setdiff1d(np.arange(1, len(boxes) + 1), kept).tolist():
        box = boxes[number - 1]
        found = np.nonzero(labels[box] == number)
        places = [axis[part][index] for axis, part, index in zip(axes, box, found, strict=True)]
        voxels, counts = np.unique(np.ravel_multi_index(places, inside.shape), return_counts=True)
        inside.flat[voxels[np.argmax(counts)]] = 1


def _float32(values: NDArray[np.floating]) -> Float:
    return np.asarray(values, dtype=np.float32)


def _zscore(channel: Float) -> Float:
    """Zero mean and unit deviation over the foreground; background becomes the value it has on that scale, clipped."""
    foreground = _inside(channel)
    return _float32(np.clip((channel - foreground.mean()) / max(float(foreground.std()), 1e-6), -_CLIP, _CLIP))


def _inside(channel: Float) -> Float:
    """The values of the foreground; all values where there is none."""
    foreground = channel[channel > _background_level(channel)]
    return foreground if foreground.size else channel.ravel()


def _background_level(channel: Float) -> float:
    """A level between air and tissue: a tenth of the way from the 1st to the 99th percentile, robust to hot spots and dark ringing."""
    low, high = (float(value) for value in np.percentile(channel, (1, 99)))
    return low + 0.1 * (high - low)


def _foreground(volume: Volume) -> Box:
    """The box around everything that is not background, in any channel, with a margin."""
    channels = [np.nan_to_num(channel.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0) for channel in volume.array]
    bright = np.any([channel > _background_level(channel) for channel in channels], axis=0)
    i, j, k = (_span(bright.mean(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return i, j, k


def _span(share: NDArray[np.floating]) -> slice:
    """From the first to the last plane with more than noise in it."""
    planes = np.flatnonzero(share > _NOISE)
    return slice(max(0, int(planes[0]) - _MARGIN), int(planes[-1]) + 1 + _MARGIN) if len(planes) else slice(0, len(share))


def _crop(volume: Volume, box: Box) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in box]
    return replace(volume, array=volume.array[(slice(None), *box)], affine=affine)


def _place(prepared: Volume, scan: Volume) -> Box:
    """The box of the scan's voxels that became the prepared scan."""
    turn = np.linalg.inv(scan.affine) @ prepared.affine
    start = np.rint(turn[:3, 3] - turn[:3, :3] @ np.full(3, 0.5) + 0.5).astype(int)
    stop = start + np.rint(np.diag(turn)[:3] * prepared.shape).astype(int)
    i, j, k = (slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    return i, j, k


def carry_back(values: Float, prepared: Volume, scan: Volume) -> Float:
    """A map on the grid of a prepared scan on the grid of the scan itself; 0 where the prepared scan was cropped.

    Args:
        values: (I, J, K) on the grid of `prepared`.
        prepared: What `Preprocess` made of the scan.
        scan: The scan in RAS order.
    """
    box = _place(prepared, scan)
    i, j, k = (part.stop - part.start for part in box)
    back = np.zeros(scan.shape, np.float32)
    back[box] = resample(values, (i, j, k))
    return back


def carry_back_slices(scores: tuple[float, ...], prepared: Volume, scan: Volume) -> tuple[float, ...]:
    """Scores of the slices of a prepared scan as scores of the scan's own slices, 0 for those that were cropped.

    Where slices were resampled too, there is no score for each slice of the scan, and the scores come back as they are.
    """
    along_k = _place(prepared, scan)[2]
    if len(scores) != along_k.stop - along_k.start:
        return scores
    return (*[0.0] * along_k.start, *scores, *[0.0] * (scan.shape[2] - along_k.stop))


def _regrid(volume: Volume, grid: Grid) -> NDArray[np.float64]:
    """The affine of the same field of view cut into another number of voxels."""
    factors = np.array(volume.shape) / np.array(grid)
    affine = volume.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] += volume.affine[:3, :3] @ ((factors - 1) / 2)
    return affine


def resample(array: Float, grid: Grid) -> Float:
    """An `(I, J, K)` array on another grid over the same field of view, linear, with smoothing where it gets coarser."""
    if array.shape == tuple(grid):
        return np.asarray(array, dtype=np.float32)
    from scipy.ndimage import affine_transform, gaussian_filter

    factors = np.array(array.shape) / np.array(grid)
    smooth = gaussian_filter(array, np.maximum(0.0, (factors - 1) / 2), mode="nearest")
    return np.asarray(
        affine_transform(smooth, factors, offset=(factors - 1) / 2, output_shape=tuple(grid), order=1, mode="nearest"), dtype=np.float32
    )
