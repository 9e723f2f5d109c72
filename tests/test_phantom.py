"""The generated cohort: deterministic, balanced, with its truth on the grid of the scans."""

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.ndimage import label

from medssl.errors import ConfigError, UsageError
from medssl.phantom import Cohort, make_cohort

SHAPE = (32, 32, 12)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.read(make_cohort(tmp_path_factory.mktemp("phantom"), patients=16, shape=SHAPE, seed=1))


def bytes_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (bytes_of(make_cohort(tmp_path / name, patients=4, shape=SHAPE, seed=7)) for name in "ab")
    assert first == second


def test_another_seed_writes_another_cohort(tmp_path: Path) -> None:
    first, second = (bytes_of(make_cohort(tmp_path / str(seed), patients=1, shape=SHAPE, seed=seed)) for seed in (1, 2))
    assert first != second


def test_sites_formats_and_labels_are_balanced(cohort: Cohort) -> None:
    kinds = Counter((patient.site, patient.image.endswith("flair"), patient.label) for patient in cohort.patients)
    assert set(kinds.values()) == {2}
    assert len(kinds) == 8


def test_only_ill_patients_have_a_lesion_and_it_is_not_empty(cohort: Cohort) -> None:
    for patient in cohort.patients:
        assert bool(patient.lesion) == (patient.label == "lesion") == (patient.lesion_volume_ml > 0)
        if patient.lesion:
            mask = np.asanyarray(nib.load(cohort.root / patient.lesion).dataobj)
            assert label(mask, np.ones((3, 3, 3)))[1] == patient.lesion_count
            assert 1 <= patient.lesion_count <= 4


def test_lesions_are_brighter_than_the_brain_around_them(cohort: Cohort) -> None:
    brighter = []
    for patient in cohort.patients:
        if patient.lesion and patient.image.endswith(".nii.gz"):
            image, mask = (nib.load(cohort.root / name).get_fdata() for name in (patient.image, patient.lesion))
            brighter.append(image[mask > 0].mean() / np.median(image[image > image.mean()]))
    assert np.mean(brighter) > 1.0


def test_a_dicom_series_lies_on_the_grid_of_its_mask(cohort: Cohort) -> None:
    patient = next(patient for patient in cohort.patients if patient.lesion and patient.image.endswith("flair"))
    slices = sorted(
        (pydicom.dcmread(path) for path in (cohort.root / patient.image).iterdir()), key=lambda item: item.ImagePositionPatient[2]
    )
    affine = nib.load(cohort.root / patient.lesion).affine
    corner = affine @ (SHAPE[0] - 1, SHAPE[1] - 1, 3, 1)
    assert np.allclose(slices[3].ImagePositionPatient, (-corner[0], -corner[1], corner[2]), atol=1e-3)
    assert slices[0].pixel_array.shape == (SHAPE[1], SHAPE[0])
    assert len(slices) == SHAPE[2]


def test_lesion_voxels_of_a_dicom_series_are_bright(cohort: Cohort) -> None:
    ratios = []
    for patient in cohort.patients:
        if patient.lesion and patient.image.endswith("flair"):
            slices = sorted(
                (pydicom.dcmread(path) for path in (cohort.root / patient.image).iterdir()), key=lambda item: item.InstanceNumber
            )
            volume = np.stack([item.pixel_array.T[::-1, ::-1] for item in slices], axis=-1)  # to RAS
            mask = nib.load(cohort.root / patient.lesion).get_fdata() > 0
            ratios.append(volume[mask].mean() / volume[mask[::-1]].mean())  # against the mirrored place
    assert np.mean(ratios) > 1.1


def test_uids_are_unique_and_patients_are_synthetic(cohort: Cohort) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in cohort.root.rglob("*.dcm")]
    assert len({header.SOPInstanceUID for header in headers}) == len(headers) == 8 * SHAPE[2]
    assert all(header.PatientID.startswith("PHANTOM-") and header.SOPInstanceUID.is_valid for header in headers)


def test_sites_differ_in_spacing(cohort: Cohort) -> None:
    spacing = {
        patient.site: nib.load(cohort.root / patient.image).header.get_zooms()
        for patient in cohort.patients
        if patient.image.endswith("gz")
    }
    assert not np.allclose(spacing["A"], spacing["B"])


@pytest.mark.parametrize("settings", [{"patients": 0}, {"shape": (8, 8, 8)}])
def test_a_cohort_that_cannot_be_is_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make_cohort(tmp_path, **settings)


def test_a_folder_without_a_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make a cohort"):
        Cohort.read(tmp_path)
