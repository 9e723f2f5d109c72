"""How long does one DICOM series take to become a checked volume? medssl (all checks on) against SimpleITK and MONAI.

Rows: the 192-slice MR series of the shared data where it is there, a generated CT of 300 x 512 x 512, and 100 slices of it compressed as
JPEG-LS, JPEG 2000 and lossless JPEG. Arms are interleaved in one process after a discarded first round; the median of each is compared.
Voxels are held against SimpleITK's before anything is timed. medssl makes every check but no fingerprint of the voxels, which only the
report of `medssl check` needs. The load of the machine is printed: what else runs on it makes every arm slower, and not all alike.

    python -m benchmarks.intake [--rounds 5] [--slices 300]
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import SimpleITK as sitk  # noqa: N813 - as its own documentation does
from monai.data.image_reader import PydicomReader
from monai.transforms.io.array import LoadImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, generate_uid
from scipy.ndimage import gaussian_filter

from medssl.io.discover import read_folder

MPRAGE = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom" / "mprage_siemens"
Arm = Callable[[Path], object]


def medssl_arm(folder: Path) -> NDArray[np.generic]:
    """Every check and the geometry; `(I, J, K)` in RAS order."""
    (reading,) = read_folder(folder, fingerprint=False)
    if reading.volume is None:
        raise SystemExit(f"medssl refused the series: {reading.record.reasons}")
    voxels: NDArray[np.generic] = reading.volume.array[0]
    return voxels


def simpleitk_arm(folder: Path) -> sitk.Image:
    """GDCM finds and orders the files."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image: sitk.Image = reader.Execute()
    return image


def monai_arm(folder: Path) -> object:
    """MONAI's pydicom reader."""
    return LoadImage(reader=PydicomReader(), image_only=False)(folder)


def read_bytes(folder: Path) -> int:
    """The limit: reading the files."""
    return sum(len(path.read_bytes()) for path in sorted(folder.iterdir()))


def write_ct(folder: Path, slices: int, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """A CT-like series: smooth tissue, noise, 12 bits in 16, rescale to HU."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    tissue = gaussian_filter(generator.normal(size=(512, 512)), 12)
    tissue = tissue / tissue.std() * 200 + 1024
    study, series, frame = (generate_uid(entropy_srcs=["benchmark", name]) for name in ("study", "series", "frame"))
    for k in range(slices):
        pixels = np.clip(np.roll(tissue, k, axis=0) + generator.normal(0, 12, tissue.shape), 0, 4095).astype("<u2")
        dataset = _slice(pixels, k, study, series, frame)
        if syntax == JPEGLosslessSV1:
            stream = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=12)
            dataset.PixelData = encapsulate([bytes(stream)])
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)
    return folder


def _slice(pixels: NDArray[np.uint16], k: int, study: str, series: str, frame: str) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["benchmark", str(k)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    tags = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT", "PatientID": "BENCH",
        "PatientName": "BENCH", "StudyInstanceUID": study, "SeriesInstanceUID": series, "FrameOfReferenceUID": frame,
        "InstanceNumber": k + 1, "SliceThickness": 1.0, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.7, 0.7],
        "ImagePositionPatient": [-180, -180, float(k)], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 512, "Columns": 512, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "RescaleSlope": 1, "RescaleIntercept": -1024,
    }  # fmt: skip
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    return dataset


def check_equal(folder: Path) -> None:
    """The same voxels as SimpleITK, once its axes are brought to RAS."""
    ours = medssl_arm(folder)
    theirs = sitk.GetArrayFromImage(sitk.DICOMOrient(simpleitk_arm(folder), "RAS")).transpose(2, 1, 0)
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"{folder.name}: the voxels differ from SimpleITK's")


def time_arms(folder: Path, arms: dict[str, Arm], rounds: int) -> dict[str, float]:
    """Median seconds of each arm, interleaved; the first round is discarded."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds + 1):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm(folder)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, then the CT row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.getLogger("monai").setLevel(logging.ERROR)  # it says for every series which decoder it lacks
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    arms: dict[str, Arm] = {"read bytes": read_bytes, "medssl": medssl_arm, "SimpleITK": simpleitk_arm}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"CT": write_ct(Path(scratch) / "ct", given.slices)}
        folders |= {
            name: write_ct(Path(scratch) / name, min(100, given.slices), syntax)
            for name, syntax in (("JPEG-LS", JPEGLSLossless), ("JPEG 2000", JPEG2000Lossless), ("JPEG SV1", JPEGLosslessSV1))
        }
        if MPRAGE.is_dir():
            folders["MPRAGE"] = MPRAGE
        for name, folder in folders.items():
            check_equal(folder)
            found[name] = time_arms(folder, arms | ({"MONAI": monai_arm} if name in ("CT", "MPRAGE") else {}), given.rounds)
            row = "  ".join(f"{arm} {1000 * seconds:7.0f} ms" for arm, seconds in found[name].items())
            ratios = "  ".join(f"{found[name][arm] / found[name]['medssl']:.1f} x {arm}" for arm in found[name] if arm != "medssl")
            print(f"{name:10} {row}   medssl is {ratios}", flush=True)
    load = os.getloadavg()[0]
    print(f"load {load:.1f} after")
    ours, peer = found["CT"]["medssl"], found["CT"]["SimpleITK"]
    record = {"benchmark": "intake", "medssl": ours, "peer": peer, "peer_name": "SimpleITK series reader", "ratio": peer / ours}
    print(json.dumps(record | {"unit": "s", "higher_is_better": False, "load": load, "rows": found}))


if __name__ == "__main__":
    main()
