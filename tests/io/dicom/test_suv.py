"""PET to SUV by body weight, held against the formula written out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medssl.errors import ScanError
from medssl.io.discover import read_folder, read_volume
from medssl.io.options import ReadOptions

SUV = ReadOptions(pet="suv")
HALF_LIFE_S, DOSE_BQ, WEIGHT_KG = 6586.2, 3.7e8, 70.0
Change = Callable[[Dataset], object]


@pytest.fixture
def pet(write_series: Callable[..., Path]) -> Callable[[Change], Path]:
    """Writes a PET series in Bq/ml, injected at 10:00, scanned from 11:00; `change` alters each slice."""

    def make(change: Change = lambda _ds: None) -> Path:
        def slice_of(ds: Dataset, k: int) -> None:
            tracer = Dataset()
            tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = str(DOSE_BQ), str(HALF_LIFE_S)
            tracer.RadiopharmaceuticalStartTime = "100000.00"
            ds.RadiopharmaceuticalInformationSequence = Sequence([tracer])
            ds.Modality, ds.Units, ds.DecayCorrection, ds.PatientWeight = "PT", "BQML", "START", str(WEIGHT_KG)
            ds.CorrectedImage = ["ATTN", "DECAY", "SCAT"]
            ds.SeriesDate, ds.SeriesTime = "20200102", "110000"
            ds.AcquisitionDate, ds.AcquisitionTime = "20200102", f"11{k:02d}00"
            ds.RescaleSlope, ds.RescaleIntercept = 1.5, 0
            change(ds)

        return write_series(slice_of)

    return make


def suv(values: np.ndarray, *, elapsed_s: float) -> np.ndarray:
    """The definition: activity by the dose that is left, by body weight in g."""
    return values * (WEIGHT_KG * 1000) / (DOSE_BQ * 0.5 ** (elapsed_s / HALF_LIFE_S))


def tracer(ds: Dataset) -> Dataset:
    return ds.RadiopharmaceuticalInformationSequence[0]


def philips(tag: int, value: str) -> Change:
    def change(ds: Dataset) -> None:
        ds.Units = "CNTS"
        ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(tag, "DS", value)

    return change


def ge(ds: Dataset) -> None:
    """A series made a day later, with the start of the scan in GE's private tag."""
    ds.SeriesDate = "20200103"
    ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200102105500.00")


def reformatted(ds: Dataset) -> None:
    """A series made a day later; the frame of 120 s from 11:00 on has its average count rate at 660 s of the scan."""
    ds.SeriesDate, ds.AcquisitionTime, ds.FrameReferenceTime, ds.ActualFrameDuration = "20200103", "110000", "660000", "120000"


RATE = np.log(2) / HALF_LIFE_S
AVERAGE_S = np.log(RATE * 120 / (1 - np.exp(-RATE * 120))) / RATE
ELAPSED: dict[str, tuple[Change, float]] = {
    "start of the scan": (lambda _ds: None, 3600),
    "over midnight": (lambda ds: setattr(tracer(ds), "RadiopharmaceuticalStartTime", "233000"), 11.5 * 3600),
    "a dated injection": (lambda ds: setattr(tracer(ds), "RadiopharmaceuticalStartDateTime", "20200102093000.00+0100"), 5400),
    "dates removed": (lambda ds: (delattr(ds, "SeriesDate"), delattr(ds, "AcquisitionDate")), 3600),
    "the injection": (lambda ds: setattr(ds, "DecayCorrection", "ADMIN"), 0),
    "GE": (ge, 3300),
    "a frame": (reformatted, 3600 + AVERAGE_S - 660),
    "the first acquisition": (lambda ds: setattr(ds, "SeriesDate", "20200103"), 3600),
}


@pytest.mark.parametrize("name", ELAPSED)
def test_activity_becomes_suv_at_the_time_that_it_is_corrected_to(pet, voxels, name: str) -> None:
    change, elapsed_s = ELAPSED[name]
    volume = read_volume(pet(change), SUV)
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array[0], suv((voxels + 1024) * 1.5, elapsed_s=elapsed_s), rtol=1e-5)


def test_values_are_as_stored_unless_somebody_chooses(pet, voxels) -> None:
    assert np.allclose(read_volume(pet()).array[0], (voxels + 1024) * 1.5)


def test_other_modalities_are_left_alone(write_series, voxels) -> None:
    assert np.array_equal(read_volume(write_series(), SUV).array[0], voxels)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        (philips(0x00, "0.002"), 0.002),
        (philips(0x09, "4.5"), 4.5 * WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600 / HALF_LIFE_S))),
        (lambda ds: setattr(ds, "Units", "GML"), 1.0),
    ],
    ids=["Philips SUV", "Philips Bq/ml", "SUV"],
)
def test_units_that_need_another_factor(pet, voxels, change: Change, factor: float) -> None:
    assert np.allclose(read_volume(pet(change), SUV).array[0], (voxels + 1024) * 1.5 * factor, rtol=1e-5)


FAULTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "weight": (lambda ds: setattr(ds, "PatientWeight", ""), ("suv_weight",)),
    "weight and dose": (
        lambda ds: (setattr(ds, "PatientWeight", "0"), delattr(tracer(ds), "RadionuclideTotalDose")),
        ("suv_weight", "suv_dose"),
    ),
    "tracer": (lambda ds: delattr(ds, "RadiopharmaceuticalInformationSequence"), ("suv_dose", "suv_half_life")),
    "half life": (lambda ds: setattr(tracer(ds), "RadionuclideHalfLife", "0"), ("suv_half_life",)),
    "injection": (lambda ds: delattr(tracer(ds), "RadiopharmaceuticalStartTime"), ("suv_times",)),
    "scan": (lambda ds: delattr(ds, "SeriesTime"), ("suv_times",)),
    "injected after the scan": (lambda ds: setattr(tracer(ds), "RadiopharmaceuticalStartDateTime", "20200102120000"), ("suv_times",)),
    "another shift of dates": (lambda ds: setattr(tracer(ds), "RadiopharmaceuticalStartDateTime", "20190102100000"), ("suv_times",)),
    "no decay correction": (lambda ds: setattr(ds, "DecayCorrection", "NONE"), ("suv_correction",)),
    "not attenuation corrected": (lambda ds: setattr(ds, "CorrectedImage", ["DECAY"]), ("suv_correction",)),
    "counts": (lambda ds: setattr(ds, "Units", "CNTS"), ("suv_units",)),
    "lean body mass": (lambda ds: (setattr(ds, "Units", "GML"), setattr(ds, "SUVType", "LBM")), ("suv_units",)),
    "weights that differ": (lambda ds: setattr(ds, "PatientWeight", str(70 + ds.ImagePositionPatient[2] / 1000)), ("suv_units",)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_missing_is_named(pet, name: str) -> None:
    change, codes = FAULTS[name]
    folder = pet(change)
    (reading,) = read_folder(folder, SUV)
    assert reading.record.reasons == ("no_suv", *codes)
    with pytest.raises(ScanError, match="no_suv"):
        read_volume(folder, SUV)
    assert read_volume(folder).shape == (40, 36, 4)
