"""A generated cohort of brain-like FLAIR scans with lesions, as DICOM and NIfTI, with the truth: for the demo and for tests.

Every scan is a function of the seed and its number. Nothing in it comes from a person. What makes the task a task: bright rims of the
ventricles, vessels and motion ghosts in healthy and ill patients alike, faint and small lesions, a bias field, Rician noise, and two
sites that differ in contrast, noise and spacing.
"""

import csv
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import ArrayLike, NDArray
from rich.progress import track
from scipy.ndimage import gaussian_filter, label, zoom

from medssl.errors import ConfigError, MedSSLError, UsageError
from medssl.io.dicom.write import MRSeries, write_mr_series
from medssl.workers import Crash, Pool

Float = NDArray[np.float64]
Grid = tuple[int, int, int]

_HEAD_MM = (64.0, 72.0, 62.0)  # semi-axes of the head; its centre lies 10 mm below that of the field of view
_CENTRE_K_MM = -10.0
_BASE_GRID = (96, 96, 32)
_RADIUS_MM = (4.0, 14.0)
_SMALLEST_VOXELS = 6


@dataclass(frozen=True)
class Site:
    """A scanner: its spacing on the usual grid, tissue levels (1 = white matter of site A), noise and stored scale."""

    name: str
    spacing_mm: tuple[float, float, float]
    white: float
    grey: float
    fluid: float
    fat: float
    noise: float
    scale: float
    slope: float


SITES = (
    Site("A", (1.6, 1.6, 3.0), white=1.0, grey=1.28, fluid=0.32, fat=1.5, noise=0.05, scale=500.0, slope=1.0),
    Site("B", (1.5, 1.5, 3.3), white=1.0, grey=1.17, fluid=0.42, fat=1.15, noise=0.075, scale=310.0, slope=0.5),
)


@dataclass(frozen=True)
class Patient:
    """A row of `patients.csv`: image and lesion are relative to the cohort, lesion is empty for a normal scan."""

    patient: str
    site: str
    image: str
    lesion: str
    label: str
    age: int
    sex: str
    lesion_count: int
    lesion_volume_ml: float


@dataclass(frozen=True)
class Cohort:
    """The truth about a cohort.

    Args:
        root: Its folder.
        patients: One scan each.
    """

    root: Path
    patients: tuple[Patient, ...]

    @classmethod
    def read(cls, root: Path) -> Self:
        """Read `patients.csv` of a cohort.

        Raises:
            UsageError: There is no cohort in the folder.
        """
        table = root / "patients.csv"
        if not table.is_file():
            raise UsageError(f"no patients.csv in {root.name}; make a cohort there first")
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return cls(root, tuple(_patient(row) for row in rows))


@dataclass(frozen=True)
class _Plan:
    """What is drawn for a patient before any voxel is."""

    number: int
    site: Site
    dicom: bool
    ill: bool


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """A healthy head on its grid: tissue levels, and where a lesion may lie."""

    levels: Float  # (I, J, K), 1 = white matter
    brain: NDArray[np.bool_]  # (I, J, K), without ventricles and sulci
    points_mm: Float  # (3, I, J, K), head coordinates


def make_cohort(out: Path, *, patients: int = 24, shape: Grid = _BASE_GRID, seed: int = 0) -> Path:
    """Write a cohort.

    Half of the patients are ill, half come as DICOM series, half from each site; the three are balanced against each other.

    Args:
        out: Folder; made where it is missing.
        patients: Number of patients, at least 1.
        shape: Voxels along R, A, S; the field of view stays the same, so fewer voxels are larger ones.
        seed: Of everything that is drawn.

    Returns:
        The folder, with `patients.csv` and a folder a patient.

    Raises:
        ConfigError: No patients, or fewer than 16 x 16 x 6 voxels.
    """
    if patients < 1:
        raise ConfigError(f"a cohort needs at least 1 patient, got {patients}")
    if shape[0] < 16 or shape[1] < 16 or shape[2] < 6:
        raise ConfigError(f"a phantom needs at least 16 x 16 x 6 voxels, got {shape}")
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(patients)
    plans = [_Plan(number, SITES[turn % 2], bool(turn // 2 % 2), bool(turn // 4 % 2)) for number, turn in enumerate(order, start=1)]
    with Pool() as pool:
        written = dict(track(pool.spread(partial(_write_patient, out, shape=shape, seed=seed), plans), "generating", total=patients))
    rows = [_whole(written[number]) for number in range(patients)]
    with (out / "patients.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Patient)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return out


def _patient(row: dict[str, str]) -> Patient:
    numbers = int(row["age"]), row["sex"], int(row["lesion_count"]), float(row["lesion_volume_ml"])
    return Patient(row["patient"], row["site"], row["image"], row["lesion"], row["label"], *numbers)


def _whole(outcome: Patient | Crash) -> Patient:
    if isinstance(outcome, Crash):
        raise MedSSLError("a process died while it wrote the cohort; give it more memory")
    return outcome


def _write_patient(out: Path, plan: _Plan, *, shape: Grid, seed: int) -> Patient:
    generator = np.random.default_rng([seed, plan.number])
    name = f"PHANTOM-{plan.number:03d}"
    affine = _affine(plan.site, shape)
    anatomy = _anatomy(plan.site, shape, affine, generator)
    lesion, glow, count = _lesions(anatomy, affine, generator) if plan.ill else (np.zeros(shape, bool), np.zeros(shape), 0)
    stored = _acquire(anatomy.levels + glow, plan.site, generator)
    folder = out / name
    folder.mkdir(exist_ok=True)
    image = f"{name}/flair" if plan.dicom else f"{name}/flair.nii.gz"
    if plan.dicom:
        write_mr_series(out / image, stored, affine, _describe(plan, seed))
    else:
        _write_nifti(out / image, (stored * plan.site.slope).astype(np.int16), affine)
    if plan.ill:
        _write_nifti(folder / "lesion.nii.gz", lesion.astype(np.uint8), affine)
    volume_ml = round(float(lesion.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000.0), 3)
    age, sex = int(generator.integers(25, 85)), "FM"[int(generator.integers(2))]
    verdict, mask = ("lesion", f"{name}/lesion.nii.gz") if plan.ill else ("normal", "")
    return Patient(name, plan.site.name, image, mask, verdict, age, sex, count, volume_ml)


def _affine(site: Site, shape: Grid) -> Float:
    """Voxel index to RAS+ mm; the centre of the field of view is the origin."""
    spacing = np.array(site.spacing_mm) * np.array(_BASE_GRID) / np.array(shape)
    affine: Float = np.diag(np.append(spacing, 1.0))
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return np.asarray(np.round(affine, 6), dtype=np.float64)


@lru_cache(maxsize=64)
def _interpolation(knots: int, size: int) -> Float:
    """Weights `(size, knots)` that carry free values to a finer axis by cubic splines."""
    weights = zoom(np.eye(knots), (size / knots, 1.0), order=3, mode="nearest", grid_mode=True)
    return np.asarray(weights, dtype=np.float64)


def _field(shape: Grid, knots: Grid, generator: np.random.Generator) -> Float:
    """A smooth random field of unit deviation, `knots` free values along each axis."""
    fine: Float = generator.standard_normal([min(pair) for pair in zip(shape, knots, strict=True)])
    for axis, size in enumerate(shape):
        fine = np.moveaxis(np.tensordot(_interpolation(fine.shape[axis], size), fine, (1, axis)), 0, axis)
    return np.asarray((fine - fine.mean()) / max(float(fine.std()), 1e-9), dtype=np.float64)


def _radius(points: Float, centre: ArrayLike, semi_axes: ArrayLike) -> Float:
    """Distance from an ellipsoid's centre: 1 on its surface."""
    middle, length = (np.reshape(np.asarray(value, dtype=np.float64), (3, 1, 1, 1)) for value in (centre, semi_axes))
    return np.asarray(np.sqrt(np.square((points - middle) / length).sum(axis=0)), dtype=np.float64)


def _ramp(distance: Float, width: float) -> Float:
    """1 where the distance is well below zero, 0 well above: an edge with partial volume."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(distance / width, -30, 30))), dtype=np.float64)


def _points(shape: Grid, affine: Float, generator: np.random.Generator) -> Float:
    """Head coordinates in mm `(3, I, J, K)`: turned, scaled and warped a little for each patient."""
    axes = [affine[axis, axis] * np.arange(size) + affine[axis, 3] for axis, size in enumerate(shape)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    points[2] -= _CENTRE_K_MM
    angle = generator.normal(0, 0.06)
    x, y = points[0].copy(), points[1].copy()
    points[0], points[1] = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    points /= generator.normal(1.0, 0.03, (3, 1, 1, 1))
    return points + np.stack([_field(shape, (4, 4, 3), generator) * 1.6 for _ in range(3)])


def _anatomy(site: Site, shape: Grid, affine: Float, generator: np.random.Generator) -> _Anatomy:
    points = _points(shape, affine, generator)
    head = _radius(points, (0, 0, 0), _HEAD_MM)
    # Folds of the cortex: ridges of a field that varies over about a gyrus, deepest in the midline fissure.
    folds = np.abs(_field(shape, (19, 21, 12), generator))
    depth = 0.84 - head
    fissure = np.abs(points[0]) / 2.2
    sulci = _ramp(folds + depth * 5.5 - 0.55, 0.12) + _ramp(fissure - 0.55, 0.12) * _ramp(depth - 0.24, 0.03)
    ribbon = _ramp(depth - 0.075 - 0.16 * np.exp(-folds * 2.5), 0.014)
    basal = np.minimum.reduce([_radius(points, (side * 17, 4, -4), (7, 13, 11)) for side in (-1, 1)])
    deep = _ramp(basal - 1.0, 0.12)
    grey = np.clip(ribbon + 0.8 * deep, 0, 1)
    tissue = site.white + (site.grey - site.white) * grey + 0.025 * _field(shape, (9, 9, 6), generator)
    fluid, rim = _ventricles(points, generator)
    tissue = tissue + rim * (1 - fluid)
    wet = np.clip(np.clip(sulci, 0, 1) + fluid, 0, 1)
    inside = tissue * (1 - wet) + site.fluid * wet
    levels = _layers(inside, head, site)
    levels += _vessels(points, levels, generator)
    return _Anatomy(levels, (head < 0.81) & (wet < 0.35), points)


def _layers(inside: Float, head: Float, site: Site) -> Float:
    """Brain, fluid, skull and scalp from the inside out; air is 0."""
    brain, dura, bone, skin = (_ramp(head - edge, 0.008) for edge in (0.84, 0.875, 0.935, 1.0))
    return inside * brain + site.fluid * (dura - brain) + 0.10 * (bone - dura) + site.fat * (skin - bone)


def _ventricles(points: Float, generator: np.random.Generator) -> tuple[Float, Float]:
    """Share of fluid, and the bright rim that ageing draws around it: normal, and easily taken for a lesion."""
    size = generator.uniform(0.75, 1.45)
    bend = 0.006 * np.square(points[1])  # horns turn outwards at both ends
    bodies = []
    for side in (-1.0, 1.0):
        turned = np.stack([points[0] * side - bend, points[1], points[2]])
        bodies.append(_radius(turned, (7.5, generator.normal(0, 2), 10), (4.5 * size, 27 * size**0.5, 9 * size)))
    third = _radius(points, (0, -2, -4), (2.0 * size, 12, 10))
    distance = np.minimum.reduce([*bodies, third])
    caps = np.exp(-np.square((distance - 1.15) / 0.22)) * np.square(np.clip(points[1] / 24, -1.2, 1.2))
    return _ramp(distance - 1.0, 0.1), generator.uniform(0.0, 0.55) * caps


def _vessels(points: Float, levels: Float, generator: np.random.Generator) -> Float:
    """Small bright spots: vessels and plexus, one or two voxels wide."""
    spots = np.zeros_like(levels)
    inside = np.argwhere(_radius(points, (0, 0, 0), _HEAD_MM) < 0.8)
    for _ in range(int(generator.integers(2, 9))):
        i, j, k = inside[generator.integers(len(inside))]
        centre = points[:, i, j, k]
        spots += generator.uniform(0.2, 0.7) * np.exp(-np.square(_radius(points, centre, generator.uniform(1.0, 2.2, 3))))
    return spots


def _lesions(anatomy: _Anatomy, affine: Float, generator: np.random.Generator) -> tuple[NDArray[np.bool_], Float, int]:
    """One to four irregular bright lesions: where they are, what they add to the level, how many."""
    mask = np.zeros(anatomy.brain.shape, dtype=bool)
    glow = np.zeros(anatomy.brain.shape)
    allowed = np.argwhere(anatomy.brain & (np.abs(anatomy.points_mm[2]) < 45))
    count = 0
    for _ in range(int(generator.integers(1, 5))):
        place = allowed[generator.integers(len(allowed))]
        radius_mm = float(np.exp(generator.uniform(*np.log(_RADIUS_MM))))
        share = _blob(anatomy, place, radius_mm, generator) * anatomy.brain
        share, seen = _largest(share)
        if seen.sum() < _SMALLEST_VOXELS or (mask & gaussian_filter(seen.astype(float), 1.0).astype(bool)).any():
            continue
        mask |= seen
        glow += share * generator.uniform(0.28, 0.7)
        count += 1
    if count == 0:
        return _lesions(anatomy, affine, generator)
    return mask, glow, count


def _largest(share: Float) -> tuple[Float, NDArray[np.bool_]]:
    """The lesion without the pieces that a sulcus cuts off: one lesion is one connected component."""
    pieces, count = label(share > 0.5, np.ones((3, 3, 3)))
    largest = int(np.argmax(np.bincount(pieces.ravel(), minlength=2)[1:])) + 1 if count else 1
    return np.where((pieces == 0) | (pieces == largest), share, 0.0), pieces == largest


def _blob(anatomy: _Anatomy, place: NDArray[np.intp], radius_mm: float, generator: np.random.Generator) -> Float:
    """Share of lesion in each voxel: an ellipsoid with an uneven surface and a soft edge."""
    centre = anatomy.points_mm[:, place[0], place[1], place[2]]
    distance = _radius(anatomy.points_mm, centre, radius_mm * generator.uniform(0.75, 1.3, 3))
    uneven = _field(anatomy.brain.shape, (14, 14, 9), generator)
    return _ramp(distance + 0.16 * uneven - 1.0, 0.09)


def _acquire(levels: Float, site: Site, generator: np.random.Generator) -> NDArray[np.uint16]:
    """What the scanner stores: bias field, ghosts of motion along A, point spread, Rician noise."""
    bias = np.exp(generator.uniform(0.06, 0.16) * _field(levels.shape, (3, 3, 2), generator))
    signal = levels * bias
    strength = generator.uniform(0.0, 0.09)
    period = int(levels.shape[1] * generator.uniform(0.12, 0.3))
    signal = signal + strength * (np.roll(signal, period, axis=1) + np.roll(signal, -period, axis=1)) / 2
    signal = gaussian_filter(signal, (0.45, 0.45, 0.2))
    real, imaginary = generator.normal(0, site.noise, (2, *levels.shape))
    gain = generator.uniform(0.85, 1.15) * site.scale / site.slope
    magnitude = np.rint(np.hypot(signal + real, imaginary) * gain)
    return np.asarray(np.clip(magnitude, 0, 32767), dtype=np.uint16)


def _write_nifti(path: Path, array: NDArray[np.int16] | NDArray[np.uint8], affine: Float) -> None:
    image = Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nib.save(image, path)


def _describe(plan: _Plan, seed: int) -> MRSeries:
    """What the headers of a generated series say; UIDs follow from the seed and the number."""
    return MRSeries(
        patient=f"PHANTOM-{plan.number:03d}",
        site=f"Site {plan.site.name}",
        description="FLAIR generated",
        manufacturer="medssl phantom",
        slope=plan.site.slope,
        key=f"medssl-phantom-{seed}-{plan.number}",
    )
