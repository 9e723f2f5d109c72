"""The one preprocessing: a frozen description, applied in the same way for training and for scoring.

It turns a scan in RAS order into float32 values on the grid that the network expects, and carries maps back to the scan's own grid.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ConfigError
from medssl.volume import Volume

Float = NDArray[np.float32]
Grid = tuple[int, int, int]

_CLIP = 6.0  # z-scores beyond this are coil hot spots or metal, not tissue


@dataclass(frozen=True)
class Preprocess:
    """Grid and intensity of what a network sees.

    Args:
        spacing_mm: Target voxel size along I, J, K; a 0 keeps the scan's own. None leaves the grid as it is.
        matrix: Target number of voxels along I and J, for scans without physical geometry; excludes `spacing_mm`.
        intensity: `zscore` over the foreground (MR), `window` to 0..1 (CT, needs `window_hu`), or `percentile` 1..99 to 0..1.
        window_hu: Lower and upper bound in HU.

    Raises:
        ConfigError: Settings that exclude each other or are out of range.
    """

    spacing_mm: tuple[float, float, float] | None = None
    matrix: tuple[int, int] | None = None
    intensity: Literal["zscore", "window", "percentile"] = "zscore"
    window_hu: tuple[float, float] | None = None

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
        grid = self.grid(volume)
        array = np.stack([resample(self._scale(channel), grid) for channel in volume.array.astype(np.float32)])
        return Volume(array, _regrid(volume, grid), volume.modality, volume.nominal)

    def lesion(self, lesion: Volume) -> NDArray[np.uint8]:
        """A mask `(1, I, J, K)` of 0 and 1 on the grid of the scan it belongs to; any value above 0 is lesion."""
        lesion = lesion.to_ras()
        mask = (lesion.array[0] > 0).astype(np.float32)
        return np.asarray(resample(mask, self.grid(lesion)) >= 0.5, dtype=np.uint8)[None]

    def _scale(self, channel: Float) -> Float:
        channel = np.nan_to_num(channel, nan=0.0, posinf=0.0, neginf=0.0)
        if self.intensity == "window" and self.window_hu:
            low, high = self.window_hu
            return _float32(np.clip((channel - low) / (high - low), 0.0, 1.0))
        if self.intensity == "percentile":
            low, high = np.percentile(channel, (1, 99))
            return _float32(np.clip((channel - low) / max(high - low, 1e-6), 0.0, 1.0))
        return _zscore(channel)

    def digest(self) -> str:
        """Identity of these settings, for store keys."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, fields: dict[str, object]) -> Self:
        """Rebuild from JSON, where tuples have become lists."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})  # type: ignore[arg-type]


def _float32(values: NDArray[np.floating]) -> Float:
    return np.asarray(values, dtype=np.float32)


def _zscore(channel: Float) -> Float:
    """Zero mean and unit deviation over the foreground; background becomes the value it has on that scale, clipped."""
    foreground = channel[channel > _background_level(channel)]
    if foreground.size == 0:
        foreground = channel.ravel()
    return _float32(np.clip((channel - foreground.mean()) / max(float(foreground.std()), 1e-6), -_CLIP, _CLIP))


def _background_level(channel: Float) -> float:
    """A level between air and tissue: a tenth of the way from the darkest to the 99th percentile, robust to hot spots."""
    low, high = float(channel.min()), float(np.percentile(channel, 99))
    return low + 0.1 * (high - low)


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
