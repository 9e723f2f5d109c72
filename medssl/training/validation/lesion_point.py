"""The operating point of a detector's lesions, from its validation scans."""

import datetime
from collections.abc import Sequence

from medssl.evaluation.lesion_point import choose_lesion_point
from medssl.evaluation.lesions import Marks, mark_centres
from medssl.training.validation.points import Scored


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
