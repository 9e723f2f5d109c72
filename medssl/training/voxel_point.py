"""The operating point of a segmenter's mask, from its validation scans: threshold, and which parts of the mask count."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.lesions import components, counted

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Probabilities and lesion (I, J, K) of a scan."""

_THRESHOLDS = np.round(np.arange(0.2, 0.85, 0.05), 2)
_LEAST_VOXELS = (1, 5, 10, 20, 40, 80)
_LEAST_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
_CHOICES = tuple(product(range(len(_THRESHOLDS)), _LEAST_SHARES, _LEAST_VOXELS))


@dataclass(frozen=True, eq=False)
class Parts:
    """The components of a mask beside the true lesions.

    Args:
        sizes: (n,) voxels of each component.
        hits: (n,) of which so many are lesion.
        lesions: The true lesion that each voxel of `hits` lies in, one row for each pair: component and lesion, both from 0.
        voxels: Of the true lesion.
    """

    sizes: NDArray[np.intp]
    hits: NDArray[np.intp]
    lesions: NDArray[np.intp]
    voxels: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> "Parts":
        """Of a mask (I, J, K) and the true one."""
        numbered, count = components(mask)
        truth, _ = components(lesion)
        met = np.unique(np.stack([numbered[lesion], truth[lesion]], axis=1), axis=0)
        both = met[met[:, 0] > 0].astype(np.intp) - 1
        sizes, hits = (np.bincount(part.ravel(), minlength=count + 1)[1:] for part in (numbered, numbered[lesion]))
        return cls(sizes, hits, both, int(lesion.sum()))

    def dice(self, kept: NDArray[np.bool_]) -> float:
        """Dice of the components that are kept."""
        return float(2 * self.hits[kept].sum() / (self.sizes[kept].sum() + self.voxels))

    def found(self, kept: NDArray[np.bool_]) -> int:
        """True lesions that a kept component touches."""
        return len(np.unique(self.lesions[kept[self.lesions[:, 0]], 1])) if len(self.lesions) else 0


def voxel_point(pairs: Iterable[Pair], *, chosen_on: str) -> dict[str, object] | None:
    """The threshold, least size and least share of the scan's largest part that give the highest mean Dice; None without a lesion.

    Parts that are small beside the largest are mostly false; nnU-Net's postprocessing (Isensee et al., 2021, supplement 3) keeps the
    largest alone, here a part of half its size always stays. How many lesions of these scans are touched with and without the choice is
    recorded, for a rule that follows Dice may lose small ones.

    Args:
        pairs: Validation scans with lesion.
        chosen_on: What these scans are.
    """
    parts = [[Parts.of(probability >= threshold, lesion) for threshold in _THRESHOLDS] for probability, lesion in pairs]
    if not parts:
        return None
    means = np.mean([list(_dices(one)) for one in parts], axis=0)
    level, share, voxels = _CHOICES[int(means.argmax())]
    at_level = [one[level] for one in parts]
    return {
        "unit": "voxel",
        "threshold": float(_THRESHOLDS[level]),
        "min_voxels": voxels,
        "min_share": share,
        "rule": "highest mean Dice of scans with lesion",
        "chosen_on": chosen_on,
        "locked_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "n": len(parts),
        "dice": float(means.max()),
        "lesions_touched": _touched(at_level, voxels, share),
        "lesions_touched_by_any_part": _touched(at_level, 1, 0.0),
    }


def _dices(parts: Sequence[Parts]) -> Iterator[float]:
    """Dice of a scan at every choice."""
    for level, share, voxels in _CHOICES:
        yield parts[level].dice(counted(parts[level].sizes, min_voxels=voxels, min_share=share))


def _touched(parts: Sequence[Parts], voxels: int, share: float) -> int:
    return sum(one.found(counted(one.sizes, min_voxels=voxels, min_share=share)) for one in parts)
