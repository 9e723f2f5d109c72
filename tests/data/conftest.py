"""Small cohorts of NIfTI scans."""

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

Cohort = Callable[..., Path]


def save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 4.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def picture(seed: int, shape: tuple[int, int, int] = (24, 24, 6)) -> np.ndarray:
    """A scan with structures of its own."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, (3, 3, 1))
    return np.rint(200 + 60 * smooth / smooth.std() + 2 * noise).astype(np.int16)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Makes a folder of patients, half with a lesion, from two sites; `splits` fixes the split of some of them."""

    def make(patients: int = 10, *, splits: dict[int, str] | None = None, first: int = 0, name: str = "scans") -> Path:
        root = tmp_path / name
        table = [["patient", "site", "image", "lesion", "split"]]
        for number in range(first, first + patients):
            save(root / f"p{number}" / "image.nii.gz", picture(number))
            lesion = np.zeros((24, 24, 6), np.uint8)
            lesion[2:4, 2:4, 1] = number % 2
            save(root / f"p{number}" / "lesion.nii.gz", lesion)
            files = [f"p{number}/image.nii.gz", f"p{number}/lesion.nii.gz"]
            table.append([f"p{number}", "AB"[number % 3 == 0], *files, (splits or {}).get(number, "")])
        with (root / "patients.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
        return root

    return make
