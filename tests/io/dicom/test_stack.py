"""Plain slices are read straight into the volume, in the narrowest type that holds them."""

import numpy as np
import pydicom
import pytest

from medssl.io.discover import read_volume
from medssl.phantom import make_cohort


@pytest.fixture
def series(tmp_path):
    return next(make_cohort(tmp_path, patients=4, shape=(16, 16, 6), seed=1).glob("*/flair"))


def rewrite(series, **tags):
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def stored(series):
    """Stored values (I, J, K) in RAS order by pydicom."""
    slices = sorted((pydicom.dcmread(path) for path in series.iterdir()), key=lambda each: each.ImagePositionPatient[2])
    return np.stack([each.pixel_array[::-1, ::-1].T for each in slices], axis=-1).astype(np.int64)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(1, 0, np.uint16), (1, -1024, np.int16), (2, 7, np.int16), (400, 0, np.int32)])
def test_a_whole_rescale_stays_whole(series, slope, intercept, dtype):
    rewrite(series, RescaleSlope=slope, RescaleIntercept=intercept)
    array = read_volume(series).array[0]
    assert array.dtype == dtype
    assert np.array_equal(array, stored(series) * slope + intercept)


def test_bits_above_those_stored_are_masked(series):
    rewrite(series, RescaleSlope=1, BitsStored=8, HighBit=7)
    assert np.array_equal(read_volume(series).array[0], stored(series) & 0xFF)


def test_signed_values_of_fewer_bits_are_extended(series):
    rewrite(series, RescaleSlope=1, BitsStored=9, HighBit=8, PixelRepresentation=1)
    low = (stored(series) & 0x1FF).astype(np.int64)
    assert np.array_equal(read_volume(series).array[0], np.where(low >= 256, low - 512, low))
