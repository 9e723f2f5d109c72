"""The operating point of a detector's lesions, from its validation scans."""

import datetime
from collections.abc import Sequence

from medssl.errors import ConfigError
from medssl.evaluation.lesion_point import choose_lesion_point
from medssl.evaluation.lesions import Marks, mark_centres
from medssl.models.architecture import Network
from medssl.training.finetuning.folds import Folds
from medssl.training.validation.points import Scored

_NOT_DENSE = ("linear", "knn", "auto")


def check_detector(network: Network, folds: Folds | None, protocol: str) -> None:
    """Whether a network, where it is a detector, can be trained as asked for.

    Raises:
        ConfigError: Folds, whose findings lie in different places and cannot be averaged; or a protocol that replaces the head.
    """
    if network.task != "detection":
        return
    if protocol in _NOT_DENSE:
        raise ConfigError(f"protocol {protocol} has no boxes; give a detector one of full, light, partial, llrd, sawtooth or lora")
    if folds is not None:
        raise ConfigError("a detector has no cross-validation, for the boxes of folds cannot be averaged; leave folds out")


def lesion_point(scored: Sequence[Scored], *, rule: str, chosen_on: str = "validation") -> dict[str, dict[str, object]]:
    """The point under the name of its unit, `lesion`; empty for a network that is no detector.

    Args:
        scored: Validation scans.
        rule: Of `choose_lesion_point`.
        chosen_on: What the scans are.
    """
    marks = [_marks(one) for one in scored if one.found is not None]
    if not marks:
        return {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"lesion": choose_lesion_point(marks, rule=rule, chosen_on=chosen_on, locked_at=now)}


def _marks(one: Scored) -> Marks:
    case, found = one.case, one.found or ()
    if case.lesion is None:  # a scan that is known to have none
        return Marks(case.row.patient, hits=(), alarms=tuple(box.score for box in found), duplicates=(), n_lesions=0)
    return mark_centres([box.centre for box in found], [box.score for box in found], case.lesion[0], patient=case.row.patient)
