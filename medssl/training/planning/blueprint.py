"""A fine-tuning configuration planned from a store: crop, batch, scales and network within a memory budget.

The rules are those of nnU-Net (Isensee et al., 2021, https://doi.org/10.1038/s41592-020-01008-z, online methods; its residual encoder:
Isensee et al., 2024, https://arxiv.org/abs/2404.09556), in our own words and numbers: the crop has the shape of the median scan and
shrinks until a step fits; an axis is halved while four cells are left, a coarse axis later than the others; what memory is left goes into
the batch. Unlike there, a small budget also narrows the network, before crops lose their context. Entries are read, voxels are not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medssl.data.classes import scan_label
from medssl.data.entry import Entry
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.models.architecture import Network
from medssl.models.heads import Classifier
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.unet import PyramidUNet
from medssl.training.planning.footprint import footprint

_LEAST_CELLS = 4  # along an axis after the last halving
_COARSE = 2.0  # an axis so many times coarser than the finest one is not halved yet
_ALONG = (" along I (sagittal)", " along J (coronal)", "")  # where slices lie; along K goes without saying
_THICK = 3.0  # slices so many times thicker than pixels are resampled and cropped with care
_LARGEST = {2: 512, 3: 160}  # voxels of a crop along an axis
_STAGES = {2: 7, 3: 6}
_WIDTHS = (32, 16, 8)  # channels of the first stage, the widest that fits is taken
_MOST_CHANNELS = {2: 512, 3: 320}
_BLOCKS = (1, 3, 4, 6, 6, 6, 6)
_LEAST_BATCH = {2: 8, 3: 2}
_LARGEST_BATCH = {2: 64, 3: 16}
_SHARE = 0.05  # of the data set that a batch may hold
_CONTEXT = 0.25  # of the median scan that a crop should hold before the network is narrowed
_MARGIN = 1.3  # two measured peaks (2D, 3D) were 1.2 and 0.8 times the count


@dataclass(frozen=True)
class Traits:
    """What is known of the training scans of a store from their entries.

    Args:
        scans: Their number.
        shape: Median voxels along I, J, K.
        spacing_mm: Median voxel size of the stored grid.
        source_mm: (N, 3) voxel sizes of the scans as they came; those of the store where they are not known.
        channels: C.
        nominal: The scans have no physical geometry.
        masks: Scans with a lesion mask.
        lesion_mm: Median length of lesions along K, None without masks.
        voxels: Of all scans together.
        intensity: How the store was normalised.
        values: What masks hold that tell classes apart; empty for lesion against none.
    """

    scans: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    source_mm: NDArray[np.float64]
    channels: int
    nominal: bool
    masks: int
    lesion_mm: float | None
    voxels: int
    intensity: str
    values: tuple[int, ...] = ()

    @classmethod
    def of(cls, store: Store, split: str = "train") -> "Traits":
        """Read them from the entries of a split.

        Raises:
            ManifestError: It has no scan with a label or a mask.
        """
        rows = [row for row in store.manifest.split(split) if row.lesion or row.has_lesion or scan_label(row) >= 0]
        if not rows:
            raise ManifestError("no_rows", f"no scan of split {split!r} has labels or lesion masks; give them with medssl prepare --labels")
        entries = [store.entry(row) for row in rows]
        shapes = np.array([entry.shape[1:] for entry in entries])
        spacings = np.array([np.linalg.norm(np.array(entry.affine)[:3, :3], axis=0) for entry in entries])
        lengths = [length * spacing[2] for entry, spacing in zip(entries, spacings, strict=True) for length in _runs(entry)]
        i, j, k = np.median(shapes, axis=0).astype(int)
        i_mm, j_mm, k_mm = np.median(spacings, axis=0)
        return cls(
            scans=len(rows),
            shape=(int(i), int(j), int(k)),
            spacing_mm=(float(i_mm), float(j_mm), float(k_mm)),
            source_mm=_sources(store, spacings),
            channels=entries[0].shape[0],
            nominal=all(row.nominal for row in rows),
            masks=sum(entry.lesion is not None for entry in entries),
            lesion_mm=float(np.median(lengths)) if lengths else None,
            voxels=int(shapes.prod(axis=1).sum()),
            intensity=store.preprocess.intensity,
            values=tuple(sorted({value for entry in entries for value in entry.values})),
        )

    @property
    def target_mm(self) -> tuple[float, float, float]:
        """The spacing to prepare at: the median, but the 10th percentile along an axis that is far coarser than the others.

        So the thinner slices among thick ones keep their detail.
        """
        median = np.median(self.source_mm, axis=0)
        axis = int(median.argmax())
        others = np.delete(median, axis)
        if median[axis] > _THICK * others.max() and self.shape[axis] * _THICK < np.delete(self.shape, axis).min():
            median[axis] = max(np.percentile(self.source_mm[:, axis], 10), others.max())
        i_mm, j_mm, k_mm = (round(float(value), 3) for value in median)
        return i_mm, j_mm, k_mm

    @property
    def across(self) -> int:
        """The axis across the slices of the acquisition: the one that is far coarser than both others, else K."""
        axis = int(np.argmax(self.spacing_mm))
        others = [spacing for other, spacing in enumerate(self.spacing_mm) if other != axis]
        return axis if not self.nominal and self.spacing_mm[axis] >= _COARSE * max(others) else 2

    def dims(self) -> tuple[Literal[2, 3], str]:
        """2D or 3D, and why: a network of slices sees planes along K, so only slices that lie so are judged by their thickness."""
        axis, depth = self.across, self.shape[2]
        if depth < 2 * _LEAST_CELLS:
            return 2, f"the median scan has {depth} slice{'s' if depth > 1 else ''}"
        thick = self.spacing_mm[axis] / max(spacing for other, spacing in enumerate(self.spacing_mm) if other != axis)
        if axis == 2 and not self.nominal and thick > _THICK:
            return 2, f"slices are {thick:.1f} times as thick as pixels, so neighbours tell little of each other"
        return 3, f"the median scan has {self.shape[axis]} slices{_ALONG[axis]}, {thick:.1f} times as thick as pixels"

    @property
    def cut_across(self) -> str:
        """What 2D would mean for slices that do not lie along K; empty where they do."""
        if self.across == 2:
            return ""
        pixels = " x ".join(f"{value:.2f}" for value in self.spacing_mm[:2])
        return f"slices lie{_ALONG[self.across]}, and 2D cuts across them, into axial planes with pixels of {pixels} mm"


def _runs(entry: Entry) -> list[int]:
    """How many slices each run of neighbouring slices with lesion has."""
    slices = np.array(entry.lesion_slices, dtype=int)
    return [len(run) for run in np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)] if len(slices) else []


def _sources(store: Store, stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel sizes of the scans before they were resampled, from the intake report."""
    path = store.folder / "intake.json"
    records = json.loads(path.read_text(encoding="utf-8"))["scans"] if path.is_file() else []
    known = [record["spacing_mm"] for record in records if record.get("spacing_mm") and record.get("status") != "rejected"]
    return np.array(known, dtype=float) if known else stored


@dataclass(frozen=True)
class Topology:
    """Scales of a network for one crop.

    Args:
        strides: Of each stage along each axis, the first all 1.
        kernels: Width of the convolutions of each stage along each axis.
    """

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def multiple(self) -> tuple[int, ...]:
        """What the crop must be a multiple of along each axis."""
        return tuple(int(total) for total in np.prod(np.array(self.strides), axis=0))


def topology(size: Sequence[int], spacing_mm: Sequence[float]) -> Topology:
    """Halve each axis while at least `_LEAST_CELLS` cells are left; a coarse axis waits, with kernels of 1, until the others are as coarse.

    Args:
        size: Voxels of the crop along each axis.
        spacing_mm: Voxel size along each axis.
    """
    cells, spacing = np.array(size), np.array(spacing_mm, dtype=float)
    strides, full = [(1,) * len(size)], [spacing < _COARSE * spacing.min()]
    while len(strides) < _STAGES[len(size)]:
        can = cells >= 2 * _LEAST_CELLS
        if not can.any():
            break
        halved = can & (spacing < _COARSE * spacing[can].min())
        step = np.where(halved, 2, 1)
        cells, spacing = cells // step, spacing * step
        strides.append(tuple(map(int, step)))
        full.append(full[-1] | (spacing < _COARSE * spacing.min()))
    return Topology(tuple(strides), tuple(tuple(3 if reached else 1 for reached in stage) for stage in full))


@dataclass(frozen=True)
class Blueprint:
    """A plan that fits the budget.

    Args:
        traits: Of the store.
        task: `segmentation` where there are masks, else `classification`.
        dims: 2 or 3.
        reason: Of the dims.
        size: Crop.
        topology: Scales.
        width: Channels of the first stage.
        batch_size: Crops a step.
        step_bytes: Counted for one step, without the margin.
        memory_gb: The budget.
    """

    traits: Traits
    task: Literal["segmentation", "classification"]
    dims: Literal[2, 3]
    reason: str
    size: tuple[int, ...]
    topology: Topology
    width: int
    batch_size: int
    step_bytes: int
    memory_gb: float

    def __str__(self) -> str:
        """One line for people."""
        warned = f"; {self.traits.cut_across}" if self.dims == 2 and self.traits.cut_across else ""
        return f"{self.task} in {self.dims}D ({self.reason}{warned}), crops of {list(self.size)}, batches of {self.batch_size}"

    @property
    def context(self) -> int:
        """Neighbouring slices as channels: 3 for slices of a volume."""
        return 3 if self.dims == 2 and self.traits.shape[2] > 2 else 1


def propose(traits: Traits, *, memory_gb: float, dims: Literal[2, 3] | None = None) -> Blueprint:
    """Choose crop, scales, width and batch.

    Args:
        traits: Of the store.
        memory_gb: For one training step (1 GB is 10^9 bytes), beside what the process itself takes.
        dims: 2 or 3, where that is decided; None decides by the scans.

    Raises:
        ConfigError: Not even the smallest crop fits.
    """
    found, reason = (dims, "asked for") if dims is not None else traits.dims()
    task: Literal["segmentation", "classification"] = "segmentation" if traits.masks else "classification"
    shape = np.array(traits.shape[:found])
    plans = (_fitted(traits, task, found, width, memory_gb) for width in _WIDTHS)
    fitting = [plan for plan in plans if plan is not None]
    if not fitting:
        raise ConfigError(f"no crop fits {memory_gb:g} GB; give more memory (--memory-gb)")
    whole = [plan for plan in fitting if np.prod(plan[0] / np.maximum(shape, 1)) >= _CONTEXT]
    size, scales, width, batch, taken = (whole or fitting[-1:])[0]
    return Blueprint(traits, task, found, reason, tuple(map(int, size)), scales, width, batch, taken, memory_gb)


_Fit = tuple[NDArray[np.int_], Topology, int, int, int]


def _fitted(traits: Traits, task: str, dims: Literal[2, 3], width: int, memory_gb: float) -> _Fit | None:
    """The largest crop of one width that fits, with its scales, width, batch and bytes."""
    shape, spacing = np.array(traits.shape[:dims]), traits.spacing_mm[:dims]
    start = np.minimum(shape, _LARGEST[dims])
    scales = topology(start.tolist(), spacing)
    size = _rounded(start, scales.multiple)
    channels = traits.channels * (3 if dims == 2 and traits.shape[2] > 2 else 1)
    budget = memory_gb * 1e9 / _MARGIN
    while True:
        scales = topology(size.tolist(), spacing)
        size = _rounded(size, scales.multiple)
        cost = footprint(partial(network_of, task, scales, channels, width), size.tolist())
        if cost.total(_LEAST_BATCH[dims]) <= budget:
            break
        counted, expected = size.prod(), float("inf")
        while expected > budget:  # what a smaller crop takes goes with its voxels; it is counted once that may fit
            smaller = _smaller(size, shape, scales.multiple)
            if smaller is None:
                return None
            size = smaller
            expected = cost.state + _LEAST_BATCH[dims] * cost.sample * size.prod() / counted
    share = int(_SHARE * traits.voxels / size.prod())
    fitting = int((budget - cost.state) / cost.sample)
    batch = max(_LEAST_BATCH[dims], min(fitting, share, _LARGEST_BATCH[dims]))
    return size, scales, width, batch, cost.total(batch)


def _rounded(size: NDArray[np.int_], multiple: Sequence[int]) -> NDArray[np.int_]:
    """Up to the next multiple along each axis."""
    step = np.array(multiple)
    return np.asarray(-(-size // step) * step)


def _smaller(size: NDArray[np.int_], shape: NDArray[np.int_], multiple: Sequence[int]) -> NDArray[np.int_] | None:
    """The crop with one step less along the axis where it covers most of the median scan; None where no axis can give."""
    step = np.array(multiple)
    left = np.where(size - step >= np.minimum(2 * _LEAST_CELLS, size), size / shape, -1.0)
    axis = int(left.argmax())
    if left[axis] < 0:
        return None
    smaller = size.copy()
    smaller[axis] -= step[axis]
    return smaller


def network_of(task: str, scales: Topology, channels: int, width: int) -> Network:
    """The network of a plan."""
    encoder = ResidualEncoder(**encoder_arguments(scales, channels, width))  # type: ignore[arg-type]
    return PyramidUNet(encoder, deep_supervision=True) if task == "segmentation" else Classifier(encoder)


def encoder_arguments(scales: Topology, channels: int, width: int) -> dict[str, object]:
    """Arguments of the residual encoder of a plan."""
    dims, stages = len(scales.multiple), len(scales.strides)
    return {
        "spatial_dims": dims,
        "in_channels": channels,
        "stage_widths": [min(width * 2**stage, _MOST_CHANNELS[dims]) for stage in range(stages)],
        "stage_blocks": list(_BLOCKS[:stages]),
        "stage_strides": [list(stride) for stride in scales.strides],
        "stage_kernels": [list(kernel) for kernel in scales.kernels],
    }
