"""Damage that scanners, protocols and patients do to a scan, in five stated severities, to see how far a model holds.

The idea of a fixed panel of corruptions by severity is that of Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261; the
corruptions here are those of magnetic resonance and computed tomography. A severity never changes what is drawn, only how strongly it
acts, so the severities of one scan are paired. Whatever the corruption, background that was cut out of a scan (flat areas at the lowest
value of a channel: skull stripping, defacing, padding) stays as it was.

To add a corruption: one function with a `@_corruption` line above it, and a row in its test.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, convolve1d, gaussian_filter1d

from medssl.errors import ConfigError
from medssl.volume import Array, Volume

Float = NDArray[np.float32]
Kind = Literal["MR", "CT", "other"]
Amounts = tuple[float, float, float, float, float]
Change = Callable[[Volume, float, np.random.Generator], Float]

SEVERITIES = 5
EVERY: tuple[Kind, ...] = ("MR", "CT", "other")
_WATER_TO_AIR_HU = 1000.0
_BACKGROUND = 0.1  # of the way from the 1st to the 99th percentile
_FIELD_ORDER = 3
_CENTRE_LINES = 0.05  # share of k-space that ghosting leaves alone
_MOVED_MM = 3.0
_FLAT = np.ones((1, 3, 3, 1), dtype=bool)


@dataclass(frozen=True)
class Corruption:
    """One kind of damage.

    Args:
        name: Stable name, as in files and tables.
        what: What is done, as a phrase.
        parameter: What the amounts are, with their unit.
        amounts: One for each severity, 1 to 5.
        kinds: Kinds of scan to which it can happen.
        through_plane: It acts between slices, so a scan of one slice is out of its reach.
        change: The values (C, I, J, K) that a scan, whose values are float32 and finite, gets.
    """

    name: str
    what: str
    parameter: str
    amounts: Amounts
    kinds: tuple[Kind, ...]
    through_plane: bool
    change: Change

    def suits(self, volume: Volume) -> bool:
        """Whether this can happen to such a scan."""
        return self.happens_to(volume.modality, slices=volume.shape[2])

    def happens_to(self, modality: str, *, slices: int) -> bool:
        """Whether this can happen to scans of a DICOM modality with so many slices."""
        return kind_of(modality) in self.kinds and (slices > 1 or not self.through_plane)

    def __call__(self, volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
        """The damaged scan on the same grid, with the same type of values.

        Args:
            volume: `(C, I, J, K)`, in HU for CT.
            severity: 0 leaves the scan as it is, 1 to 5 damage it more and more.
            generator: The same state gives the same damage.

        Raises:
            ConfigError: A severity out of range, or a scan to which this cannot happen.
        """
        if not 0 <= severity <= SEVERITIES:
            raise ConfigError(f"severity must be 0 to {SEVERITIES}, got {severity}")
        if not self.suits(volume):
            raise ConfigError(f"{self.name} cannot happen to a scan of modality {volume.modality or 'unknown'}, shape {volume.shape}")
        if severity == 0:
            return volume
        before = np.nan_to_num(volume.array.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        after = self.change(replace(volume, array=before), self.amounts[severity - 1], generator)
        return replace(volume, array=_typed(np.where(_cut_out(before), before, after), volume.array.dtype))


CORRUPTIONS: dict[str, Corruption] = {}
"""By name, in the order of the panel."""


def _corruption(
    what: str, parameter: str, amounts: Amounts, *, kinds: tuple[Kind, ...] = EVERY, through_plane: bool = False
) -> Callable[[Change], Change]:
    def register(change: Change) -> Change:
        name = change.__name__
        CORRUPTIONS[name] = Corruption(name, what, parameter, amounts, kinds, through_plane, change)
        return change

    return register


@_corruption("Rician noise", "deviation in each part of the signal, share of tissue signal", (0.03, 0.06, 0.1, 0.15, 0.2), kinds=("MR",))
def rician_noise(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """Magnitude of a complex signal with Gaussian noise in both parts: Gudbjartsson, Patz, 1995, https://doi.org/10.1002/mrm.1910340618."""
    image, lowest, signal = _magnitude(volume)
    real, imaginary = generator.standard_normal((2, *image.shape), dtype=np.float32) * (amount * signal)
    return _float32(lowest + np.hypot(image + real, imaginary))


@_corruption("Gaussian noise", "deviation, share of 1000 HU or of tissue signal", (0.01, 0.02, 0.04, 0.07, 0.11), kinds=("CT", "other"))
def gaussian_noise(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """Noise of zero mean, as of few photons after reconstruction."""
    noise = generator.standard_normal(volume.array.shape, dtype=np.float32)
    return _float32(_float32(volume.array) + noise * amount * _magnitude(volume)[2])


@_corruption("bias field", "largest logarithm of the field", (0.1, 0.2, 0.35, 0.5, 0.7), kinds=("MR",))
def bias_field(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """A smooth factor, the exponential of a polynomial in space: Van Leemput et al., 1999, https://doi.org/10.1109/42.811268."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in volume.shape), indexing="ij")
    field = np.zeros(volume.shape)
    for i, j, k in np.ndindex(*[_FIELD_ORDER + 1] * 3):
        if 0 < i + j + k <= _FIELD_ORDER:
            field += generator.uniform(-1, 1) * axes[0] ** i * axes[1] ** j * axes[2] ** k
    field /= max(float(np.abs(field).max()), 1e-6)
    image, lowest, _ = _magnitude(volume)
    return _float32(lowest + image * np.exp(amount * field))


@_corruption("ghosting", "weakening of every n-th line of k-space", (0.2, 0.35, 0.5, 0.7, 0.9), kinds=("MR",))
def ghosting(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """Shifted copies along the phase-encoding axis J, from lines that a periodic motion weakens.

    Wood and Henkelman, "MR image artifacts from periodic motion", Medical Physics 12, 1985; every second to fifth line is weakened, the
    centre of k-space is not.
    """
    image, lowest, _ = _magnitude(volume)
    lines = np.fft.fftfreq(image.shape[2]) * image.shape[2]
    period = int(generator.integers(2, 6))
    hit = (np.rint(lines) % period == 0) & (np.abs(lines) > _CENTRE_LINES * image.shape[2] / 2)
    spectrum = np.fft.fft(image, axis=2) * (1 - amount * hit)[:, None]
    return _float32(lowest + np.abs(np.fft.ifft(spectrum, axis=2)))


@_corruption("motion", "share of k-space acquired after a shift of 3 mm in the plane", (0.1, 0.2, 0.3, 0.4, 0.48), kinds=("MR",))
def motion(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """One sudden shift while lines of k-space are acquired along J, one after the other: Zaitsev et al., 2015.

    https://doi.org/10.1002/jmri.24850; a shift in space is a ramp of phase. Rotations are left out.
    """
    image, lowest, _ = _magnitude(volume)
    angle = generator.uniform(0, 2 * np.pi)
    step_i, step_j = (_MOVED_MM * turn / size for turn, size in zip((np.cos(angle), np.sin(angle)), volume.spacing_mm[:2], strict=True))
    along_i, along_j = (np.fft.fftfreq(size) for size in image.shape[1:3])
    is_late = np.argsort(np.argsort(along_j)) >= (1 - amount) * len(along_j)
    ramp = np.exp(-2j * np.pi * (step_i * along_i[:, None] + step_j * along_j))
    spectrum = np.fft.fft2(image, axes=(1, 2)) * np.where(is_late, ramp, 1)[..., None]
    return _float32(lowest + np.abs(np.fft.ifft2(spectrum, axes=(1, 2))))


@_corruption("blur", "deviation of a Gaussian in the plane, mm", (0.5, 1.0, 1.5, 2.0, 3.0))
def blur(volume: Volume, amount: float, generator: np.random.Generator) -> Float:  # noqa: ARG001 - nothing is drawn
    """A wider point spread in the plane."""
    image = np.asarray(volume.array, dtype=np.float64)
    for axis, size in ((1, volume.spacing_mm[0]), (2, volume.spacing_mm[1])):
        image = gaussian_filter1d(image, amount / size, axis=axis, mode="nearest")
    return _float32(image)


@_corruption("lower resolution", "pixels as many times as large", (1.5, 2.0, 3.0, 4.0, 6.0))
def downsampling(volume: Volume, amount: float, generator: np.random.Generator) -> Float:  # noqa: ARG001 - nothing is drawn
    """Larger pixels, each the mean of what it covers, interpolated linearly back onto the grid."""
    image = np.asarray(volume.array, dtype=np.float64)
    for axis in (1, 2):
        image = _coarser(image, amount, axis)
    return _float32(image)


@_corruption("thicker slices", "slices as many times as thick, at the same places", (1.5, 2.0, 3.0, 4.0, 5.0), through_plane=True)
def slice_thickness(volume: Volume, amount: float, generator: np.random.Generator) -> Float:  # noqa: ARG001 - nothing is drawn
    """Each slice as the mean over a box as thick as the new slice; partial slices count by their share."""
    half = (amount - 1) / 2
    rest = half - int(half)
    weights = np.array([rest, *[1.0] * (2 * int(half) + 1), rest]) / amount
    return _float32(convolve1d(np.asarray(volume.array, dtype=np.float64), weights, axis=3, mode="nearest"))


@_corruption("gamma", "logarithm of the power, up or down", (0.1, 0.2, 0.35, 0.5, 0.7), kinds=("MR", "other"))
def gamma(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """Another curve of contrast: values as shares of their range, to a power; half of the scans get darker, half brighter."""
    power = np.exp(amount * generator.choice((-1.0, 1.0)))
    image, lowest, _ = _magnitude(volume)
    highest = np.maximum(image.max(axis=(1, 2, 3), keepdims=True), 1e-6)
    return _float32(lowest + highest * (image / highest) ** power)


@_corruption("contrast", "relative change of HU about water, up or down", (0.02, 0.05, 0.1, 0.15, 0.2), kinds=("CT",))
def contrast(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """Another slope of HU about water, as other tube voltages and calibrations give."""
    return _float32(_float32(volume.array) * (1 + amount * generator.choice((-1.0, 1.0))))


@_corruption("shift of values", "share of 1000 HU or of tissue signal, up or down", (0.005, 0.01, 0.02, 0.04, 0.08), kinds=("CT", "other"))
def intensity_shift(volume: Volume, amount: float, generator: np.random.Generator) -> Float:
    """All values higher or lower, as a scanner that has drifted: 5 to 80 HU on CT."""
    return _float32(_float32(volume.array) + amount * generator.choice((-1.0, 1.0)) * _magnitude(volume)[2])


def kind_of(modality: str) -> Kind:
    """Which physics scans of a DICOM modality obey."""
    kinds: dict[str, Kind] = {"MR": "MR", "CT": "CT"}
    return kinds.get(modality, "other")


def _magnitude(volume: Volume) -> tuple[Float, Float, Float]:
    """Values above the lowest of each channel; that lowest; what tissue gives: 1000 HU on CT, else the median of the foreground."""
    image = np.asarray(volume.array, dtype=np.float32)
    lowest = image.min(axis=(1, 2, 3), keepdims=True)
    if kind_of(volume.modality) == "CT":
        return image - lowest, lowest, np.full_like(lowest, _WATER_TO_AIR_HU)
    return image - lowest, lowest, _float32([_tissue(channel) for channel in image - lowest]).reshape(lowest.shape)


def _tissue(channel: Float) -> float:
    """Median of what lies clearly above the background, or of all where nothing does, of a channel (I, J, K) whose lowest value is 0."""
    dark, bright = np.percentile(channel, (1, 99))
    tissue = channel[channel > dark + _BACKGROUND * (bright - dark)]
    return float(np.median(tissue if tissue.size else channel))


def _cut_out(image: Float) -> NDArray[np.bool_]:
    """Background (C, I, J, K) that holds nothing at all: 3 x 3 pixels and more at the lowest value of the channel."""
    lowest = image == image.min(axis=(1, 2, 3), keepdims=True)
    return np.asarray(binary_opening(lowest, _FLAT))


def _coarser(image: NDArray[np.float64], factor: float, axis: int) -> NDArray[np.float64]:
    """Means over cells `factor` as wide along an axis, and straight lines between their centres."""
    size = image.shape[axis]
    edges = np.linspace(0, size, max(1, round(size / factor)) + 1)
    total = np.pad(np.cumsum(image, axis=axis), [(int(other == axis), 0) for other in range(image.ndim)])
    means = np.diff(_between(total, edges, axis), axis=axis) / np.diff(edges)[0]
    centres = (np.arange(size) + 0.5) / np.diff(edges)[0] - 0.5
    return _between(means, centres, axis)


def _between(values: NDArray[np.float64], places: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Values of an axis at places between its indices, linear, the edges repeated."""
    inside = places.clip(0, values.shape[axis] - 1)
    below = np.minimum(inside.astype(int), max(values.shape[axis] - 2, 0))
    share = (inside - below).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    above = np.minimum(below + 1, values.shape[axis] - 1)
    return np.asarray(values.take(below, axis=axis) * (1 - share) + values.take(above, axis=axis) * share)


def _float32(values: object) -> Float:
    return np.asarray(values, dtype=np.float32)


def _typed(values: Float, dtype: np.dtype[np.generic]) -> Array:
    """The values in a type of voxels; whole numbers are rounded, and end where the type ends."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(np.dtype(dtype.str))
    return np.rint(values).clip(limits.min, limits.max).astype(dtype)
