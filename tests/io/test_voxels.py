import hashlib

import numpy as np
import pytest

from medssl.errors import ScanError
from medssl.io.voxels import check_values, narrow, rescaled, voxels_sha256
from medssl.volume import Volume


def test_the_fingerprint_is_over_rounded_int32_in_ras_order():
    values = np.array([[[0.5, 1.5], [np.nan, -2.5]]], dtype=np.float32)
    flipped = Volume(values[None, ::-1, ::-1], np.diag([-1.0, -1.0, 1.0, 1.0]))
    expected = hashlib.sha256(np.array([0, 2, 0, -2], dtype="<i4").tobytes()).hexdigest()
    assert voxels_sha256(flipped) == expected
    assert voxels_sha256(Volume(values[None], np.eye(4))) == expected


def test_values_whose_sum_overflows_are_refused():
    with pytest.raises(ScanError, match="value_range"):
        check_values(np.array([[[1e38, 0, 3e38, 3e38]]], dtype=np.float32), constant_allowed=False)


def test_some_values_that_are_not_finite_are_a_warning():
    assert check_values(np.array([1, np.nan, 2.0]), constant_allowed=False) == ("nonfinite_voxels",)


def test_a_whole_rescale_stays_integer():
    assert rescaled(np.array([0, 4095], dtype=np.uint16), 1.0, -1024.0).dtype == np.int16
    assert rescaled(np.array([0, 65535], dtype=np.uint16), 1.0, -1024.0).dtype == np.int32


def test_long_integers_become_int32_where_they_fit():
    assert narrow(np.array([0, 70000], dtype=np.int64)).dtype == np.int32
    assert narrow(np.array([0, 1 << 40], dtype=np.int64)).dtype == np.float32
