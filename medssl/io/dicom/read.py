"""A DICOM series or image to values with geometry."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from medssl.errors import ScanError
from medssl.io.decoding.pool import WORKERS
from medssl.io.dicom.frames import Frame
from medssl.io.dicom.header import DicomFile
from medssl.io.dicom.pixels import stored_frames, supported
from medssl.io.dicom.series import Slice, stack
from medssl.io.dicom.stack import is_plain, read_plain
from medssl.io.dicom.suv import suv_factor
from medssl.io.options import Pet
from medssl.io.voxels import MAX_VOXEL_BYTES, RawScan, rescaled, upright
from medssl.volume import Array


def is_picture(file: DicomFile) -> bool:
    """Whether a file is one projection or photograph without a place in the patient (radiograph, ultrasound, capture)."""
    return file.projection and file.frames[0].position is None


def read_dicom(files: Sequence[DicomFile], *, pet: Pet = "stored") -> RawScan:
    """Values after rescale, in HU for CT, with the affine of the positions.

    Args:
        files: All slices of one series, one multi-frame file, or one picture.
        pet: Values of PET as they are after rescale, or as SUV by body weight.

    Raises:
        ScanError: Any code of `medssl.io.dicom.series.stack`, `medssl.io.dicom.pixels.stored_frames` and `medssl.io.dicom.suv.suv_factor`,
            and `not_a_volume`.
    """
    scan = _read(files)
    if pet == "stored" or scan.modality != "PT":
        return scan
    factor = suv_factor(files)
    return replace(scan, values=scan.values.astype(np.float64) * factor)


def _read(files: Sequence[DicomFile]) -> RawScan:
    if not all(supported(file.syntax) for file in files):
        raise ScanError("unsupported_transfer_syntax", "the transfer syntax is unknown, a video, or has no decoder here")
    warnings = {warning for file in files for warning in file.warnings}
    if is_picture(files[0]):
        return _read_picture(files, warnings)
    if any(file.multiframe and len({frame.position for frame in file.frames}) < 2 <= len(file.frames) for file in files):
        raise ScanError("no_geometry", "the frames of the file have no position of their own")
    found = stack(files)
    first = files[0]
    if first.rows * first.columns * len(found.slices) * first.allocated // 8 > MAX_VOXEL_BYTES:
        raise ScanError("declared_size", "the series declares more voxels than the cap")
    if is_plain(found.slices):
        ordered = tuple(dict.fromkeys([*found.warnings, *sorted(warnings)]))
        return RawScan(read_plain(found.slices), found.affine, modality=first.modality, warnings=ordered)
    planes, notes = _planes(found.slices)
    ordered = tuple(dict.fromkeys([*found.warnings, *sorted(warnings | notes)]))
    return RawScan(np.stack(planes).transpose(2, 1, 0), found.affine, modality=first.modality, warnings=ordered)


def _planes(slices: Sequence[Slice]) -> tuple[list[Array], set[str]]:
    """Values `(rows, columns)` of each slice after rescale, and warnings; files are decoded several at a time."""
    frames: dict[DicomFile, list[tuple[int, Frame]]] = {}
    for number, each in enumerate(slices):
        frames.setdefault(each.file, []).append((number, each.frame))
    planes: dict[int, Array] = {}
    notes: set[str] = set()
    with ThreadPoolExecutor(WORKERS) as pool:
        for parts, found in pool.map(_file_planes, frames, frames.values()):
            planes.update(parts)
            notes.update(found)
    return [planes[number] for number in range(len(slices))], notes


def _file_planes(file: DicomFile, frames: Sequence[tuple[int, Frame]]) -> tuple[dict[int, Array], tuple[str, ...]]:
    stored, notes = stored_frames(file)
    return {number: _rescaled(stored[frame.index], frame) for number, frame in frames}, notes


def _rescaled(values: Array, frame: Frame) -> Array:
    slope = 1.0 if frame.slope is None else frame.slope
    return rescaled(values, slope, 0.0 if frame.intercept is None else frame.intercept)


def _read_picture(files: Sequence[DicomFile], warnings: set[str]) -> RawScan:
    file = files[0]
    if len(files) > 1 or len(file.frames) > 1:
        raise ScanError("not_a_volume", "found several pictures without a place in the patient")
    stored, notes = stored_frames(file)
    picture = stored[0]
    if file.photometric == "MONOCHROME1":
        # trust rule 8: a projection is shown as it is meant, white for dense
        picture = (-1 if file.signed else (1 << file.stored) - 1) - picture.astype(np.int64)
    values, affine = upright(_rescaled(picture, file.frames[0]))
    return RawScan(values, affine, modality=file.modality, nominal=True, warnings=tuple(sorted(warnings | set(notes))))
