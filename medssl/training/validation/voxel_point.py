"""The operating point of a segmenter's mask, from its validation scans: threshold, and which parts of the mask count."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.lesions import components, counted

_THRESHOLDS = np.round(np.arange(0.2, 0.85, 0.05), 2)
_LEAST_VOXELS = (1, 5, 10, 20, 40, 80)
_LEAST_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


class Choice(NamedTuple):
    """A threshold, by its place among those that are tried, and what a part of the mask must have at least to count."""

    level: int
    share: float = 0.0
    voxels: int = 1


@dataclass(frozen=True, eq=False)
class Parts:
    """The components of a mask beside the true lesions.

    Args:
        sizes: (n,) voxels of each component.
        hits: (n,) of which so many are lesion.
        met: (pairs, 2) which component touches which lesion, both from 0.
        lesions: How many there are.
        voxels: Of the true mask.
    """

    sizes: NDArray[np.intp]
    hits: NDArray[np.intp]
    met: NDArray[np.intp]
    lesions: int
    voxels: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_], lesions: NDArray[np.int32]) -> "Parts":
        """Of a mask (I, J, K) and the true lesions, numbered from 1."""
        numbered, count = components(mask)
        inside = lesions > 0
        pairs = np.unique(np.stack([numbered[inside], lesions[inside]], axis=1), axis=0).astype(np.intp)
        sizes, hits = (np.bincount(part.ravel(), minlength=count + 1)[1:] for part in (numbered, numbered[inside]))
        return cls(sizes, hits, pairs[pairs[:, 0] > 0] - 1, int(lesions.max()), int(inside.sum()))

    def kept(self, choice: Choice) -> "Kept":
        """What a least size and a least share of the largest component leave."""
        kept = counted(self.sizes, min_voxels=choice.voxels, min_share=choice.share)
        dice = 2 * self.hits[kept].sum() / (self.sizes[kept].sum() + self.voxels)
        found = len(np.unique(self.met[kept[self.met[:, 0]], 1]))
        return Kept(float(dice), found, int((self.hits[kept] == 0).sum()))


class Kept(NamedTuple):
    """What is left of a mask: its Dice, true lesions that it touches, and parts that touch none."""

    dice: float
    found: int
    false: int


def by_threshold(probability: NDArray[np.float32], lesion: NDArray[np.bool_]) -> tuple[Parts, ...]:
    """The components of a scan's mask at each threshold that is tried: what `voxel_point` takes of its map (I, J, K)."""
    lesions, _ = components(lesion)
    return tuple(Parts.of(probability >= threshold, lesions) for threshold in _THRESHOLDS)


def voxel_point(parts: Sequence[tuple[Parts, ...]], *, chosen_on: str, whole: bool = False) -> dict[str, object] | None:
    """The threshold, least size and least share of the scan's largest part that give the highest mean Dice; None without a lesion.

    Parts that are small beside the largest are mostly false; nnU-Net's postprocessing (Isensee et al., 2021, supplement 3) keeps the
    largest alone where that helps. Here a part of half its size always stays, and no choice is made with which fewer lesions are told from
    false parts than without it: the F1 of lesions, found where a part touches them, does not fall below that of all parts.

    Args:
        parts: Of each validation scan with lesion, see `by_threshold`.
        chosen_on: What these scans are.
        whole: Leave out nothing but the smallest parts, whatever the largest is: where masks hold several classes, one may be small.
    """
    if not parts:
        return None
    shares = _LEAST_SHARES[:1] if whole else _LEAST_SHARES
    choices = [Choice(*choice) for choice in product(range(len(_THRESHOLDS)), shares, _LEAST_VOXELS)]
    left = {choice: [one[choice.level].kept(choice) for one in parts] for choice in choices}
    f1 = {choice: _f1(left[choice], sum(one[0].lesions for one in parts)) for choice in choices}
    best = max((choice for choice in choices if f1[choice] >= f1[Choice(choice.level)]), key=lambda choice: _dice(left[choice]))
    return {
        "unit": "voxel",
        "threshold": float(_THRESHOLDS[best.level]),
        "min_voxels": best.voxels,
        "min_share": best.share,
        "rule": "highest mean Dice of scans with lesion",
        "chosen_on": chosen_on,
        "locked_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "n": len(parts),
        "dice": _dice(left[best]),
        "lesions_touched": sum(one.found for one in left[best]),
        "lesions_touched_by_any_part": sum(one.found for one in left[Choice(best.level)]),
    }


def _dice(left: Sequence[Kept]) -> float:
    return float(np.mean([one.dice for one in left]))


def _f1(left: Sequence[Kept], lesions: int) -> float:
    """F1 of lesions over all scans: twice the found ones, over those, the false parts and all lesions."""
    found, false = sum(one.found for one in left), sum(one.false for one in left)
    return 2 * found / (found + false + lesions)
