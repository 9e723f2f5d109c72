"""A bundle on the same scans damaged and repeated: what it scores under each condition, beside the clean scan; no maps are written.

Damage is done to the scan as it was read, before preprocessing, where the data folder of the store can be reached and still holds it.
Elsewhere it is done to what the store holds (float16, on the network's grid; for CT carried back to HU within the window), and
intensities are scaled anew afterwards, as preprocessing would.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from medssl.data.classes import scan_label
from medssl.data.dataset import Case, load_cases
from medssl.data.intake import content_sha256, read_row
from medssl.data.manifest import ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.seals import read_sealed, seal
from medssl.data.store import Store, decode
from medssl.errors import ManifestError, ScanError, UsageError
from medssl.evaluation.robustness import Outcome
from medssl.evaluation.segmentation import dice
from medssl.files import write_whole
from medssl.scoring.predictor import Predictor, Result
from medssl.views.corruptions import CORRUPTIONS, SEVERITIES
from medssl.views.retests import RETESTS
from medssl.views.streams import mixed
from medssl.volume import Volume

logger = logging.getLogger(__name__)

FORMAT = 1
SEED = 20190328
Mask = NDArray[np.bool_]
Origin = Literal["original", "prepared"]


@dataclass(frozen=True)
class Condition:
    """How the scans are shown to the model.

    Args:
        group: `clean`, `damage` or `again`.
        name: Of the corruption or of the repetition.
        severity: 1 to 5 of a corruption, else 0.
    """

    group: Literal["clean", "damage", "again"]
    name: str
    severity: int = 0

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.group}_{self.name}_{self.severity}.json" if self.severity else f"{self.group}_{self.name}.json"

    def facts(self) -> dict[str, object]:
        """What a report says of it."""
        record = {**asdict(self), "file": self.file}
        if self.group == "damage":
            corruption = CORRUPTIONS[self.name]
            amount = corruption.amounts[self.severity - 1]
            return record | {"what": corruption.what, "parameter": corruption.parameter, "amount": amount}
        return record | {"what": RETESTS[self.name].what if self.group == "again" else "as it is"}


CLEAN = Condition("clean", "clean")


@dataclass(frozen=True)
class Subject:
    """One scan of the panel.

    Args:
        case: The scan with its truth.
        origin: What damage is done to: the scan as it was read, or what the store holds.
        modality: As it is known, or as the preprocessing takes it for.
    """

    case: Case
    origin: Origin
    modality: str

    @property
    def row(self) -> ManifestRow:
        """The scan in the manifest."""
        return self.case.row

    @property
    def truth(self) -> Mask | None:
        """The true mask (I, J, K) on the network's grid: empty for a scan known to have none, None where unknown."""
        lesion = self.case.lesion
        if lesion is not None:
            return np.asarray(lesion[0] > 0)
        return np.zeros(self.case.shape[1:], dtype=bool) if self.case.known else None


@dataclass(frozen=True, eq=False)
class Panel:
    """Scans under conditions.

    Args:
        predictor: The model.
        store: Where the scans are.
        subjects: The scans.
        seed: Of the damage.
    """

    predictor: Predictor
    store: Store
    subjects: Sequence[Subject]
    seed: int

    def conditions(self) -> list[Condition]:
        """The clean scan, every damage that can happen to one of the scans, and every repetition."""
        kinds = {(subject.modality, subject.case.shape[3]) for subject in self.subjects}
        damage = [name for name, one in CORRUPTIONS.items() if any(one.happens_to(modality, slices=count) for modality, count in kinds)]
        levels = range(1, SEVERITIES + 1)
        damages = [Condition("damage", name, severity) for name in damage for severity in levels]
        return [CLEAN, *damages, *(Condition("again", name) for name in RETESTS)]

    def key(self, condition: Condition) -> str:
        """Identity of what `outcomes` gives: results with another key are not kept."""
        scans = [
            (asdict(subject.row), self.store.index.scans[subject.row.scan_id], subject.origin, subject.modality)
            for subject in self.subjects
        ]
        text = json.dumps([FORMAT, self.predictor.bundle.model_id, condition.facts(), self.seed, scans])
        return hashlib.sha256(text.encode()).hexdigest()

    def outcomes(self, condition: Condition) -> Iterator[Outcome]:
        """What the model says of each scan to which this can happen."""
        for subject in self.subjects:
            outcome = self.outcome(subject, condition)
            if outcome is not None:
                yield outcome

    def outcome(self, subject: Subject, condition: Condition) -> Outcome | None:
        """What the model says of one scan; None where this cannot happen to it."""
        scan, preprocess = self._loaded(subject)
        if condition.group == "damage" and not CORRUPTIONS[condition.name].suits(scan):
            return None
        truth = subject.truth
        if condition.group == "again" and truth is not None:
            truth = RETESTS[condition.name].mask(truth)
        prepared = preprocess(self._shown(scan, subject, condition))
        result = self.predictor.score_prepared(prepared, scan_id=subject.row.scan_id, source=subject.row.image)
        return _outcome(subject.row, self._label(subject.row, truth), truth, result)

    def _shown(self, scan: Volume, subject: Subject, condition: Condition) -> Volume:
        if condition.group == "clean":
            return scan
        if condition.group == "again":
            return RETESTS[condition.name](scan)
        number = int.from_bytes(hashlib.blake2b(f"{condition.name} {subject.row.scan_id}".encode(), digest_size=7).digest())
        return CORRUPTIONS[condition.name](scan, condition.severity, np.random.default_rng(mixed(self.seed, number)))

    def _loaded(self, subject: Subject) -> tuple[Volume, Preprocess]:
        """The scan as it can be damaged, and what makes the network's input of it."""
        if subject.origin == "original":
            image, _ = _read(self.store, subject.row)
            return replace(image, modality=subject.modality), self.store.preprocess
        return self._stored(subject), replace(self.store.preprocess, spacing_mm=None, matrix=None, crop_foreground=False)

    def _stored(self, subject: Subject) -> Volume:
        row, window = subject.row, self.store.preprocess.window_hu
        array = decode(self.store.image(row))
        if self.store.preprocess.intensity == "window" and window is not None:
            array = array * np.float32(window[1] - window[0]) + np.float32(window[0])
        return Volume(array, self.store.geometry(row), subject.modality, row.nominal)

    def _label(self, row: ManifestRow, truth: Mask | None) -> int | None:
        label = scan_label(row, self.predictor.bundle.class_names)
        if label >= 0:
            return label
        return None if truth is None else int(truth.any())


def _outcome(row: ManifestRow, label: int | None, truth: Mask | None, result: Result) -> Outcome:
    scores, overlap = result.finding.slice_scores, None
    labels: tuple[int, ...] = ()
    if truth is not None and truth.shape[2] == len(scores):
        labels = tuple(int(truth[:, :, k].any()) for k in range(len(scores)))
    if result.mask is not None and truth is not None and truth.any():
        overlap = dice(result.mask > 0, truth)
    return Outcome(row.scan_id, row.patient, label, _number(result.finding.score), labels, tuple(map(_number, scores)), overlap)


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 7)


def score_robustness(predictor: Predictor, store: Store, split: str, out: Path, *, scans: int | None = None, seed: int = SEED) -> int:
    """Score one split of a store (or `all`) under each condition into `OUT/robustness`; conditions done before are kept.

    Args:
        predictor: The model.
        store: Prepared in the way of the model.
        split: Which scans.
        out: The results folder of the same model and split.
        scans: At most so many scans, drawn by patient; all by default.
        seed: Of the draw and of the damage.

    Returns:
        How many conditions there are.

    Raises:
        UsageError: `scans` is not positive.
        ManifestError: The split is empty.
    """
    rows = store.manifest.split(split)
    if not rows:
        raise ManifestError("no_rows", f"the store has no scan in split {split!r}; its splits are in manifest.csv")
    cases = load_cases(store, drawn(rows, scans, seed=seed), classes=predictor.classes)
    panel = Panel(predictor, store, [subject_of(store, case) for case in cases], seed)
    conditions = panel.conditions()
    folder = out / "robustness"
    write_whole(folder / "panel.json", [seal(_facts(panel, conditions, split=split, of=rows))])
    missing = [condition for condition in conditions if not _is_done(panel, condition, folder)]
    if missing:
        _announce(panel, len(missing))
    for condition in track(missing, "robustness", disable=not missing):
        found = [asdict(outcome) for outcome in panel.outcomes(condition)]
        write_whole(folder / condition.file, [seal({"key": panel.key(condition), "outcomes": found})])
    return len(conditions)


def drawn(rows: Sequence[ManifestRow], scans: int | None, *, seed: int) -> list[ManifestRow]:
    """At most so many scans, whole patients in a random order, but one patient at least; in the order of the manifest.

    Raises:
        UsageError: The number is not positive.
    """
    if scans is None or scans >= len(rows):
        return list(rows)
    if scans < 1:
        raise UsageError(f"--scans must be at least 1, got {scans}")
    patients = sorted({row.patient for row in rows})
    chosen: set[str] = set()
    for number in np.random.default_rng(seed).permutation(len(patients)):
        more = chosen | {patients[number]}
        if not chosen or sum(row.patient in more for row in rows) <= scans:
            chosen = more
    return [row for row in rows if row.patient in chosen]


def subject_of(store: Store, case: Case) -> Subject:
    """What damage to a scan is done to; a box around the foreground would move with the damage, so such scans are taken as prepared."""
    taken_for = {"window": "CT", "zscore": "MR"}.get(store.preprocess.intensity, "")
    is_original = not store.preprocess.crop_foreground and _is_there(store, case.row)
    return Subject(case, "original" if is_original else "prepared", case.row.modality or taken_for)


def _is_there(store: Store, row: ManifestRow) -> bool:
    """Whether the data folder can be reached and still holds the scan that was prepared."""
    try:
        return content_sha256(*_read(store, row)) == store.index.scans[row.scan_id][1]
    except (ScanError, UsageError, OSError):
        return False


def _read(store: Store, row: ManifestRow) -> tuple[Volume, Volume | None]:
    """The scan and its mask from the data folder of the store."""
    folder = Path(os.path.normpath(store.folder.resolve() / store.index.source))
    return read_row(folder, row, store.preprocess.read)


def _is_done(panel: Panel, condition: Condition, folder: Path) -> bool:
    record = read_sealed(folder / condition.file)
    return record is not None and record.get("key") == panel.key(condition)


def _announce(panel: Panel, missing: int) -> None:
    """Say how long it will take, from one scan."""
    start = time.perf_counter()
    panel.outcome(panel.subjects[0], CLEAN)
    minutes = (time.perf_counter() - start) * missing * len(panel.subjects) / 60
    logger.info("robustness: %d scans under %d conditions, about %.1f minutes on this machine", len(panel.subjects), missing, minutes)


def _facts(panel: Panel, conditions: Sequence[Condition], *, split: str, of: Sequence[ManifestRow]) -> dict[str, object]:
    rows = [subject.row for subject in panel.subjects]
    guessed = sorted({subject.modality for subject in panel.subjects if not subject.row.modality} - {""})
    return {
        "format": FORMAT,
        "model_id": panel.predictor.bundle.model_id,
        "split": split,
        "seed": panel.seed,
        "scans": [row.scan_id for row in rows],
        "patients": len({row.patient for row in rows}),
        "of_scans": len(of),
        "of_patients": len({row.patient for row in of}),
        "done_to": {origin: sum(subject.origin == origin for subject in panel.subjects) for origin in ("original", "prepared")},
        "taken_for": guessed,
        "conditions": [condition.facts() | {"key": panel.key(condition)} for condition in conditions],
    }
