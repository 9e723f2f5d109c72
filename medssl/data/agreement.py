"""Whether what is said of a scan and what its mask holds agree."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from medssl.data.case import Case
from medssl.data.classes import NOTHING, labels_of
from medssl.errors import ManifestError

_SHOWN = 3  # scans named in an error


def check_agreement(cases: Sequence[Case]) -> None:
    """Whether labels and masks say the same, and every value of a mask is of a named class.

    Args:
        cases: Scans to learn from, or whose answers a model is held against.

    Raises:
        ManifestError: `label_mismatch` for scans whose class says lesion and whose mask is empty, or the other way round; `bad_label` for
            what masks hold and no class names.
    """
    _check_contradictions(cases)
    _check_values(cases)


def check_named(cases: Sequence[Case]) -> None:
    """Whether masks of lesion against none have their class from the label of the scan, where those of other scans have it from there.

    Raises:
        ManifestError: `bad_label` for scans with such a mask and no label.
    """
    classes = cases[0].classes
    if classes.multi_label or len(classes.lesions) < 2:
        return
    marked = [case for case in cases if case.marked_slices and not case.value_slices]
    without = [case.row.scan_id for case in marked if not case.row.label]
    if 0 < len(without) < len(marked):
        raise ManifestError(
            "bad_label",
            f"{len(without)} scans have a mask of lesion against none and no label that says of which class: {_shown(without)}; "
            "label them, or leave them out",
        )


def _check_contradictions(cases: Sequence[Case]) -> None:
    wrong: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        names = labels_of(case.row)
        if not case.has_mask or not names:
            continue
        says_lesion = any(name.casefold() not in NOTHING for name in names)
        if says_lesion != (case.row.has_lesion == "1") and case.row.has_lesion:
            wrong["an empty mask" if says_lesion else "a mask with lesion"].append(f"{case.row.scan_id} ({case.row.label})")
    for what, scans in wrong.items():
        raise ManifestError(
            "label_mismatch", f"{len(scans)} scans have {what} and a label that says otherwise: {_shown(scans)}; correct one of both"
        )


def _check_values(cases: Sequence[Case]) -> None:
    """Whether every value of the masks is of a named class; what is of none would be learned as background."""
    classes = cases[0].classes
    unnamed = Counter(value for case in cases if classes.names for value in _held_values(case) - set(case.numbers))
    if unnamed:
        found = ", ".join(f"{value} ({count} scans)" for value, count in sorted(unnamed.items()))
        raise ManifestError(
            "bad_label",
            f"no class is named for what masks hold: {found}; labels.mask_values are {list(classes.values)}. Name a class for each value "
            "in training (labels.positive may leave it out), or correct the masks",
        )


def _held_values(case: Case) -> set[int]:
    """The values of a scan's mask; 1 for lesion against none."""
    return set(case.value_slices) or ({1} if case.marked_slices else set())


def _shown(scans: Sequence[str]) -> str:
    return ", ".join(scans[:_SHOWN]) + (", ..." if len(scans) > _SHOWN else "")
