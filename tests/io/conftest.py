"""Tiny scans made in the test: a DICOM series, a NIfTI file, and the one volume that all of them hold."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

AFFINE = np.array([[0.7, 0, 0, -10.0], [0, 0.9, 0, 20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1]])


@pytest.fixture
def voxels() -> np.ndarray:
    """Values `(40, 36, 4)` without any symmetry, [x, y, z] in RAS; the JPEG 2000 encoder wants 32 pixels or more."""
    return (np.arange(40 * 36 * 4).reshape(40, 36, 4) ** 2 % 997 - 400).astype(np.int16)


def make_slice(values: np.ndarray, k: int) -> Dataset:
    """Slice k of `[x, y, z]` voxels as an axial CT image, rows front to back and columns right to left (LPS)."""
    i, j, _ = values.shape
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.3.4.{k + 1}"
    ds.Modality, ds.PatientID, ds.PatientName = "CT", "SECRET 1", "Secret^Name"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = j, i, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing, ds.SliceThickness = [0.9, 0.7], 2.5
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [round(-(AFFINE[0, 3] + 0.7 * (i - 1)), 4), round(-(AFFINE[1, 3] + 0.9 * (j - 1)), 4), 100 + 2.5 * k]
    ds.PixelData = (values[::-1, ::-1, k].T.astype(np.int32) + 1024).astype("<u2").tobytes()
    return ds


SeriesWriter = Callable[..., Path]


@pytest.fixture
def write_series(tmp_path: Path, voxels: np.ndarray) -> SeriesWriter:
    """Writes the volume as a series; `change(ds, k)` may alter a slice, or return False to leave it out."""

    def write(change: Callable[[Dataset, int], object] = lambda _ds, _k: None, *, folder: str = "series") -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for k in range(voxels.shape[2]):
            ds = make_slice(voxels, k)
            if change(ds, k) is not False:
                ds.save_as(target / f"{(k * 7) % 4}.dcm", enforce_file_format=True)
        return target

    return write


@pytest.fixture
def write_nifti(tmp_path: Path, voxels: np.ndarray) -> SeriesWriter:
    """Writes the volume as NIfTI; `change(image)` may alter the header."""

    def write(change: Callable[[nib.Nifti1Image], object] = lambda _image: None, *, name: str = "scan.nii") -> Path:
        image = nib.Nifti1Image(voxels, AFFINE)
        image.header.set_xyzt_units("mm")
        image.set_qform(AFFINE, 1)
        change(image)
        path = tmp_path / "nifti" / name
        path.parent.mkdir(exist_ok=True)
        nib.save(image, path)
        return path

    return write
