"""Arrays of a store."""

import numpy as np

from medssl.data.entry import _level


def test_background_is_told_from_air_and_not_from_the_darkest_voxel() -> None:
    channel = np.zeros((32, 32, 4), np.float16)
    channel[16:] = 100
    channel[15, ::8, 0] = -20  # ringing
    assert _level(channel) == 5
