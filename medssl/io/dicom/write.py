"""Write an axial MR series as DICOM, one file a slice. PS3.3 A.4 (MR Image IOD), for generated scans only: it holds no patient."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medssl.volume import Affine


@dataclass(frozen=True)
class MRSeries:
    """What the headers of a series say.

    Args:
        patient: Id of the patient, also its name.
        site: Institution.
        description: Of the series.
        manufacturer: Of the scanner.
        slope: Rescale slope; the intercept is 0.
        key: What all UIDs are made of; the same key gives the same UIDs.
    """

    patient: str
    site: str
    description: str
    manufacturer: str
    slope: float
    key: str


def write_mr_series(folder: Path, stored: NDArray[np.uint16], affine: Affine, series: MRSeries) -> None:
    """Write `IM0001.dcm` and so on: rows run to the left, columns to the back, as a scanner writes an axial series.

    Args:
        folder: Made where it is missing; files of these names are replaced.
        stored: `(I, J, K)` stored values, axes along R, A, S.
        affine: 4 x 4, voxel index to RAS+ mm, without rotation.
        series: Content of the headers.
    """
    folder.mkdir(exist_ok=True)
    shared = _shared_tags(series, affine)
    for k in range(stored.shape[2]):
        pixels = stored[::-1, ::-1, k].T  # (rows to the back, columns to the left)
        corner = affine @ (stored.shape[0] - 1, stored.shape[1] - 1, k, 1)
        _slice(shared, pixels, corner, k, series.key).save_as(folder / f"IM{k + 1:04d}.dcm", enforce_file_format=True)


def _shared_tags(series: MRSeries, affine: Affine) -> dict[str, object]:
    """Tags that all slices of a series share."""
    key = series.key
    i_mm, j_mm, k_mm = (round(float(affine[axis, axis]), 6) for axis in range(3))
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "SOPClassUID": MRImageStorage,
        "StudyDate": "20200101",
        "Modality": "MR",
        "Manufacturer": series.manufacturer,
        "InstitutionName": series.site,
        "SeriesDescription": series.description,
        "PatientName": series.patient.replace("-", "^"),
        "PatientID": series.patient,
        "PatientBirthDate": "",
        "PatientSex": "",
        "ScanningSequence": ["SE", "IR"],
        "SliceThickness": k_mm,
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "InversionTime": 2500,
        "SpacingBetweenSlices": k_mm,
        "PatientPosition": "HFS",
        "StudyInstanceUID": generate_uid(entropy_srcs=[key, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[key, "series"]),
        "StudyID": "",
        "SeriesNumber": 1,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[key, "frame"]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [j_mm, i_mm],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "RescaleIntercept": 0,
        "RescaleSlope": series.slope,
    }


def _slice(shared: dict[str, object], pixels: NDArray[np.uint16], corner: Affine, k: int, key: str) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[key, "slice", str(k)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in shared.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [round(float(value), 6) + 0.0 for value in (-corner[0], -corner[1], corner[2])]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()
    return dataset
