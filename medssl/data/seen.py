"""What a model has seen: digests of the patients and scans of its training and pretraining, carried from bundle to bundle.

A digest tells whether a scan or a patient at hand is one of them. It has no key: a patient's id of few digits is found by trying all, and
the signs of a scan give back a coarse picture in part (docs/store.md). Who hands a bundle on trains on pseudonyms.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssl.data.fingerprint import Bits, alike
from medssl.data.manifest import ManifestRow
from medssl.errors import ManifestError
from medssl.patients import patient_key

Seen = Mapping[str, Any]

_WITH_LABELS = "training"
LEARNED = ("pretraining", _WITH_LABELS)  # roles of scans that weights were fitted to
VALIDATION = "validation"
_NAMED = 5


@dataclass(frozen=True)
class Overlap:
    """Which of some scans a model has seen.

    Args:
        learned: scan_ids of those that its weights were fitted to, equal, nearly equal, or of a patient of that data set.
        validation: scan_ids of those that its thresholds were chosen on.
        same_ids: scan_ids of those whose patient has the id of a patient of training, where the data sets share no scan, so that the id may
            be another person's.
        labelled: Of `learned`, those that were learned with their labels.
    """

    learned: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    same_ids: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()

    def sentences(self, of: int) -> list[str]:
        """What a report says of it; `of` is how many scans were compared."""
        found = []
        if self.learned:
            found.append(f"{len(self.learned)} of {of} scans were in the training or pretraining of this model: no independent test.")
        if self.validation:
            found.append(f"{len(self.validation)} of {of} scans are those that the thresholds were chosen on: rates at them are too good.")
        if self.same_ids:
            found.append(
                f"{len(self.same_ids)} of {of} scans are of patients whose ids also occur in training. No scan is shared, so they may be "
                "other people; if they are the same, this is no independent test."
            )
        return found


def record(role: str, rows: Sequence[ManifestRow], signs: Bits) -> list[dict[str, str]]:
    """Digests of scans that were used.

    Args:
        role: `pretraining`, `training` or `validation`.
        rows: The scans.
        signs: (N, 2, 4, 64) their fingerprints.
    """
    return [
        {"role": role, "patient": _digest(row), "voxels": row.sha256, "signs": base64.b64encode(bits[:, 0].tobytes()).decode()}
        for row, bits in zip(rows, signs, strict=True)
    ]


def merged(before: Seen, scans: Iterable[dict[str, str]], *, reason: str = "") -> dict[str, Any]:
    """What a bundle has seen, from what the bundle it started from had seen and the scans of its own run.

    Args:
        before: Of the bundle it started from; empty from scratch.
        scans: What `record` gives.
        reason: Why leakage was allowed in the store, empty where it was not.
    """
    every = {(scan["role"], scan["voxels"], scan["patient"]): scan for scan in (*before.get("scans", ()), *scans)}
    return {"scans": list(every.values()), "allowed": sorted({*before.get("allowed", ()), reason} - {""})}


def merged_all(many: Iterable[Seen]) -> dict[str, Any]:
    """What all of several bundles have seen together."""
    whole: dict[str, Any] = {}
    for seen in many:
        known = merged(whole, seen.get("scans", ()))
        whole = {**known, "allowed": sorted({*known["allowed"], *seen.get("allowed", ())})}
    return whole


def overlap(seen: Seen, rows: Sequence[ManifestRow], signs: Bits, *, around: Iterable[ManifestRow] = ()) -> Overlap:
    """Compare scans with those that a model has seen.

    Args:
        seen: What a bundle has seen.
        rows: The scans.
        signs: (N, 2, 4, 64) their fingerprints.
        around: Further scans of the same data set; where one of all these scans was seen, patients of one id are one patient.
    """
    scans = seen.get("scans", ())
    if not scans or not rows:
        return Overlap()
    roles = _same_scans(scans, rows, signs)
    known = {scan["voxels"] for scan in scans}
    is_one_set = any(roles) or any(row.sha256 in known for row in around)
    same_ids = []
    people = {(scan["role"], scan["patient"]) for scan in scans}
    for row, found in zip(rows, roles, strict=True):
        same = {role for role in (*LEARNED, VALIDATION) if (role, _digest(row)) in people}
        if is_one_set:
            found |= same
        elif same:
            same_ids.append(row.scan_id)
    learned = [row.scan_id for row, found in zip(rows, roles, strict=True) if found & set(LEARNED)]
    chosen = [row.scan_id for row, found in zip(rows, roles, strict=True) if VALIDATION in found and row.scan_id not in set(learned)]
    labelled = [row.scan_id for row, found in zip(rows, roles, strict=True) if _WITH_LABELS in found]
    return Overlap(tuple(learned), tuple(chosen), tuple(same_ids), tuple(labelled))


def _same_scans(scans: Sequence[Mapping[str, str]], rows: Sequence[ManifestRow], signs: Bits) -> list[set[str]]:
    """The roles in which each row was seen, with equal voxels or nearly so."""
    roles: list[set[str]] = [{scan["role"] for scan in scans if scan["voxels"] == row.sha256} for row in rows]
    pictures = np.stack([np.frombuffer(base64.b64decode(scan["signs"]), np.uint64).reshape(2, -1) for scan in scans])
    for one in alike(signs, pictures):
        roles[one.first].add(scans[one.second]["role"])
    return roles


def refuse_seen(found: Overlap, remedy: str) -> None:
    """Stop because a model would be tested on what it has learned.

    Args:
        found: Scans that it has seen.
        remedy: What else can be done than to take other scans.

    Raises:
        ManifestError: `patient_leak`, with some of the scans.
    """
    if not found.learned:
        return
    named = ", ".join(found.learned[:_NAMED]) + (", ..." if len(found.learned) > _NAMED else "")
    raise ManifestError(
        "patient_leak",
        f"{len(found.learned)} scans were in the training or pretraining of the bundle: {named}. Take others, or {remedy}",
    )


def counts(seen: Seen) -> dict[str, int]:
    """How many scans were seen in which role."""
    return dict(Counter(scan["role"] for scan in seen.get("scans", ())))


def _digest(row: ManifestRow) -> str:
    return hashlib.sha256(patient_key(row.patient).encode()).hexdigest()
