"""Regions of a scan that were made unrecognisable, such as a face: they become background, and are treated like air from then on.

That a mask tells such regions, and that a reconstruction is not held against what stands there, follows OpenMind (Wald et al., 2024,
https://arxiv.org/abs/2412.17041).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.volume import Volume


def without_region(image: Volume, region: NDArray[np.bool_], lesion: NDArray[np.bool_] | None = None) -> Volume:
    """A scan whose defaced region holds, in each channel, what air has around it: the 1st percentile.

    Nothing of the region is left, neither in statistics of the scan nor in a voxel that is interpolated at its edge, and levels between
    background and tissue, which start from that percentile too, lie above it. Values that are not finite count as 0, as they do when a
    scan is prepared.

    Args:
        image: (C, I, J, K).
        region: (I, J, K), true where the scan was defaced.
        lesion: (I, J, K), true where lesion was drawn; None where it is not known.

    Raises:
        ScanError: `lesion_defaced` where lesion lies in the region, `all_defaced` where nothing but one value a channel lies around it.
    """
    if lesion is not None and np.any(region & lesion):
        under = f"{np.count_nonzero(region & lesion)} of {np.count_nonzero(lesion)}"
        raise ScanError("lesion_defaced", f"{under} voxels of lesion lie in the defaced region; correct one of the two masks, or give one")
    around = [np.nan_to_num(channel[~region], nan=0.0, posinf=0.0, neginf=0.0) for channel in image.array]
    if not any(np.any(values != values[:1]) for values in around):
        raise ScanError("all_defaced", "the defaced region leaves nothing of the scan; is the mask 0 where the scan was left as it was?")
    air = np.array([np.percentile(values, 1, method="lower") for values in around], image.array.dtype)
    return replace(image, array=np.where(region, air[:, None, None, None], image.array))
