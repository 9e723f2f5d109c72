"""Real DICOM series come out as dcm2niix, the converter of the field, gives them."""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.io.discover import read_folder
from medssl.io.voxels import voxels_sha256
from medssl.volume import Volume

SERIES = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom"
CONVERTER = Path(sys.executable).with_name("dcm2niix")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not SERIES.is_dir(), reason="no folder shared beside the checkout"),
    pytest.mark.skipif(not CONVERTER.exists() and shutil.which("dcm2niix") is None, reason="dcm2niix is not installed"),
]


def converted(folder: Path, out: Path) -> list[Volume]:
    """The volumes that dcm2niix makes of a folder, in closest RAS order."""
    command = str(CONVERTER) if CONVERTER.exists() else "dcm2niix"
    subprocess.run([command, "-z", "n", "-b", "n", "-f", "%s_%d", "-o", str(out), str(folder)], check=True, capture_output=True)
    images = [nib.load(path) for path in sorted(out.glob("*.nii"))]
    return [Volume(np.asanyarray(image.dataobj)[None], image.affine).to_ras() for image in images]


@pytest.mark.parametrize("name", ["mprage_siemens", "brain_tumor_progression"])
def test_voxels_and_geometry_agree_with_dcm2niix(tmp_path: Path, name: str) -> None:
    expected = {voxels_sha256(volume): volume for volume in converted(SERIES / name, tmp_path)}
    found = [reading.record for reading in read_folder(SERIES / name)]
    assert {record.voxels_sha256 for record in found} == set(expected)
    for record in found:
        affine = np.array(record.affine_ras)
        assert np.abs(affine - expected[record.voxels_sha256].affine).max() < 0.01
