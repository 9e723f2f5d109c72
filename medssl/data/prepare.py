"""From a folder of scans to a store: read, refuse, compare, split by patient, preprocess."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from rich.progress import track

from medssl.data.entry import remove_entry
from medssl.data.fingerprint import Bits
from medssl.data.intake import Intake, Reading, Storing, keep, read_row, take_in
from medssl.data.layouts import find_layout, split_volumes
from medssl.data.leakage import Guard, Leakage, LeakPair, duplicates, near_duplicates, refuse, resplit, write_pairs
from medssl.data.manifest import Manifest
from medssl.data.preprocess import Preprocess
from medssl.data.seen import overlap, refuse_seen
from medssl.data.splits import assign
from medssl.data.store import Index, write_store
from medssl.errors import ConflictError, ManifestError, ScanError, UsageError
from medssl.files import remove_leftovers, write_whole
from medssl.io.options import AS_STORED, ReadOptions
from medssl.workers import Crash, Pool

__all__ = ["Guard", "plan", "prepare", "read_row"]

logger = logging.getLogger(__name__)

_ISOTROPIC = 2.0  # slices at most this many times as far apart as pixels are resampled too
_LARGEST_MATRIX = 256  # in-plane voxels of scans without geometry
_STRICT = Guard()

Spacing = tuple[float, float, float]

Task = TypeVar("Task")
Result = TypeVar("Result")


def prepare(
    folder: Path,
    out: Path,
    *,
    layout: str | None = None,
    labels: Path | None = None,
    preprocess: Preprocess | None = None,
    spacing_mm: Spacing | None = None,
    options: ReadOptions = AS_STORED,
    seed: int = 0,
    workers: int | None = None,
    guard: Guard = _STRICT,
) -> tuple[Manifest, int]:
    """Read every scan of a folder, split by patient, and write a store, or go on where it was; only damaged scans are made again.

    Args:
        folder: Scans, in a layout that is found or named.
        out: The store.
        layout: `table`, `bids`, `nnunet` or `plain`; None finds it.
        labels: A table with labels, instead of one in the folder.
        preprocess: Grid and intensity, and how scans are read; None plans grid and intensity from the scans.
        spacing_mm: Voxel size of the grid that is planned, instead of the typical one; a 0 keeps that of each scan.
        options: How scans are read, where `preprocess` does not say.
        seed: Of the split.
        workers: Processes; None takes one a core.
        guard: What is done about equal scans of different patients, and what a model has seen.

    Returns:
        The manifest of the store, and how many scans were left out.

    Raises:
        UsageError, ManifestError: No folder, no usable scan; `patient_leak` for content under two patients or known to the guard's model.
        ConflictError: `out` holds a store with another preprocessing, of another format, or of another folder with none of these scans.
    """
    options = options if preprocess is None else preprocess.read
    rows = split_volumes(folder, find_layout(folder, layout=layout, labels=labels), options)
    old, source = _opened(out), os.path.relpath(folder.resolve(), out.resolve())
    is_claimed = old is None or old.source == source  # else nothing is stored yet
    readings = [Reading(folder, out, row, preprocess if is_claimed else None, options) for row in rows]
    with Pool(workers) as pool:
        intakes = _warned(_read(readings, pool))
        usable = _usable(intakes, folder)
        _claim(out, old, index := Index(preprocess or replace(plan(usable, spacing_mm), read=options), source), usable)
        manifest, leakage = _split(usable, out, seed=seed, guard=guard)
        storings = _keep(_storings(folder, out, usable, manifest, index.preprocess), pool)
    _write_report(out, intakes)
    index = replace(index, scans={each.row.scan_id: (each.key, each.content_sha256) for each in storings})
    write_store(out, manifest, index, signs=_signs(usable), leakage=leakage)
    _remove_outdated(out, old, index, readings={intake.row.scan_id for intake in intakes})
    return manifest, len(intakes) - len(usable)


def _read(readings: Sequence[Reading], pool: Pool) -> list[Intake]:
    """The intake of every scan, in order."""
    note = "decoder_crashed: the process that read it died"
    intakes = [
        Intake(reading.row, refusal="decoder_crashed", note=note) if isinstance(outcome, Crash) else outcome
        for reading, outcome in zip(readings, _all(pool, take_in, readings, "reading"), strict=True)
    ]
    for intake in intakes:
        if intake.refusal:
            logger.warning("%s left out: %s", intake.row.scan_id, intake.note)
    return intakes


def _opened(out: Path) -> Index | None:
    """What the store held before, without the leavings of a run that was killed."""
    old = Index.read(out)
    remove_leftovers(out)
    return old


def _usable(intakes: Sequence[Intake], folder: Path) -> list[Intake]:
    usable = [intake for intake in intakes if not intake.refusal]
    if not usable:
        found = ", ".join(f"{count} {code}" for code, count in _reasons(intakes).items()) or "nothing that looks like a scan"
        raise ManifestError("no_rows", f"no usable scan in {folder.name}: {found}; medssl check says why")
    _tell_defaced(usable)
    return usable


def _tell_defaced(usable: Sequence[Intake]) -> None:
    """Say how much of the scans was taken for background, so that a mask of what was kept is noticed."""
    shares = [intake.defaced_share for intake in usable if intake.defaced_share is not None]
    if shares:
        logger.info(
            "%d scans have a mask of what was defaced: %.1f to %.1f %% of a scan", len(shares), 100 * min(shares), 100 * max(shares)
        )


def _claim(out: Path, old: Index | None, new: Index, usable: Sequence[Intake]) -> None:
    """Stop before a folder takes the place of another one; a folder elsewhere that holds a scan of the store was moved."""
    if old is not None and old.scans and old.source != new.source:
        known = {content for _, content in old.scans.values()}
        if not any(intake.content_sha256 in known for intake in usable):
            raise ConflictError(f"{out.name} holds scans of another folder and none of these; give another out folder")
    new.claim(out)


def _write_report(out: Path, intakes: Sequence[Intake]) -> None:
    report = {"scans": [intake.as_record() for intake in intakes], "counts": dict(Counter(intake.status for intake in intakes))}
    write_whole(out / "intake.json", [json.dumps(report, indent=1).encode()])


def _storings(folder: Path, out: Path, usable: Sequence[Intake], manifest: Manifest, preprocess: Preprocess) -> list[Storing]:
    """What is to be stored, in the order of the manifest."""
    contents = {intake.row.scan_id: intake.content_sha256 for intake in usable}
    return [Storing(folder, out, row, contents[row.scan_id], preprocess) for row in manifest.rows]


def _keep(storings: Sequence[Storing], pool: Pool) -> Sequence[Storing]:
    """Store every scan that is not stored whole; returns all of them."""
    for storing, outcome in zip(storings, _all(pool, keep, storings, "preprocessing"), strict=True):
        if isinstance(outcome, Crash):
            raise ScanError("decoder_crashed", f"a process died over scan {storing.row.scan_id}; give more memory or fewer workers")
        if outcome:
            logger.warning("the store entry of scan %s was damaged and was made again", storing.row.scan_id)
    return storings


def _all(pool: Pool, function: Callable[[Task], Result], tasks: Sequence[Task], doing: str) -> list[Result | Crash]:
    """The results of all tasks in their order, with a progress bar."""
    done = dict(track(pool.spread(function, tasks), doing, total=len(tasks)))
    return [done[index] for index in range(len(tasks))]


def _warned(intakes: Sequence[Intake]) -> list[Intake]:
    """The intakes, those whose voxels come twice with a warning."""
    count = Counter(intake.row.sha256 for intake in intakes if not intake.refusal)
    return [
        replace(intake, warnings=(*intake.warnings, "duplicate_pixels")) if count[intake.row.sha256] > 1 else intake for intake in intakes
    ]


def plan(intakes: Sequence[Intake], spacing_mm: Spacing | None = None) -> Preprocess:
    """Grid and intensity from what was found: the typical spacing (or matrix, without geometry), CT in HU, all else z-scored.

    Args:
        intakes: The scans.
        spacing_mm: Taken instead of the typical one.

    Raises:
        UsageError: A spacing for scans without geometry.
    """
    rows = [intake.row for intake in intakes]
    ct = all(row.modality == "CT" for row in rows)
    window_hu = (-160.0, 240.0) if ct else None  # soft tissue: level 40, width 400
    intensity: Literal["window", "zscore"] = "window" if ct else "zscore"
    shapes = np.array([intake.shape for intake in intakes])
    if nominal := sum(row.nominal for row in rows):
        if spacing_mm is not None:
            raise UsageError(f"{nominal} scans have no physical voxel size, so none can be kept; leave out --spacing-mm, or see --units")
        if nominal < len(rows):
            logger.warning("%d of %d scans have no physical voxel size, so all are brought to one matrix; see --units", nominal, len(rows))
        i, j = (int(min(_LARGEST_MATRIX, round(float(np.median(shapes[:, axis]))))) for axis in (0, 1))
        return Preprocess(matrix=(i, j), intensity=intensity, window_hu=window_hu)
    if spacing_mm is not None:
        return Preprocess(spacing_mm=spacing_mm, intensity=intensity, window_hu=window_hu)
    i_mm, j_mm, k_mm = (round(float(value), 3) for value in np.median([intake.spacing_mm for intake in intakes], axis=0))
    keep_slices = k_mm > _ISOTROPIC * min(i_mm, j_mm)
    return Preprocess(spacing_mm=(i_mm, j_mm, 0.0 if keep_slices else k_mm), intensity=intensity, window_hu=window_hu)


def _split(usable: Sequence[Intake], out: Path, *, seed: int, guard: Guard) -> tuple[Manifest, Leakage]:
    """Draw the splits that no table gives, and stop at content under two patients, or that a model has seen.

    Returns:
        The manifest, with notes on the scans concerned, and what the guard found.
    """
    rows, signs = [intake.row for intake in usable], _signs(usable)
    pairs = [pair for pair in (*duplicates(rows), *near_duplicates(rows, signs)) if not pair.same_patient]
    drawn = assign(rows, seed=seed, together=[(pair.first, pair.second) for pair in pairs])
    pairs = resplit(pairs, drawn)
    write_pairs(out / "leakage.csv", pairs)
    refuse(pairs, guard, out / "leakage.csv")
    tested = [number for number, row in enumerate(rows) if row.split != "train"]
    seen = overlap(guard.seen, [rows[number] for number in tested], signs[tested], around=rows)
    if not guard.reason:
        refuse_seen(seen, "say why with --allow-leakage REASON")
    across = [pair for pair in pairs if pair.is_crossing]
    if pairs:
        logger.warning("%d pairs of scans of different patients are (nearly) equal, %d across splits: leakage.csv", len(pairs), len(across))
    marks = {scan_id: f"seen by the model; allowed: {guard.reason}" for scan_id in seen.learned} | _marks(across, guard.reason)
    manifest = Manifest(tuple(replace(row, leakage=marks.get(row.scan_id, "")) for row in drawn))
    kept_together = bool(pairs) and guard.keep_together
    return manifest, Leakage(len(pairs), len(across), len(seen.learned), guard.reason, kept_together)


def _marks(across: Sequence[LeakPair], reason: str) -> dict[str, str]:
    """For the column `leakage` of the manifest: whose content lies in which other split, and why it may."""
    marks: dict[str, str] = {}
    for pair in across:
        for scan, other, split in ((pair.first, pair.second, pair.splits[1]), (pair.second, pair.first, pair.splits[0])):
            marks.setdefault(scan, f"{pair.kind}: {other} in {split}; allowed: {reason}")
    return marks


def _signs(usable: Sequence[Intake]) -> Bits:
    return np.stack([intake.signs for intake in usable if intake.signs is not None])


def _remove_outdated(out: Path, old: Index | None, new: Index, *, readings: Collection[str]) -> None:
    """Remove what the store held of scans that are gone or were edited, but the `readings` of these scan_ids."""
    held = {} if old is None else old.scans
    for scan_id, (key, _) in held.items():
        if new.scans.get(scan_id, ("", ""))[0] != key:
            remove_entry(out, scan_id, key)
    if gone := held.keys() - new.scans.keys():
        logger.warning("%d scans that %s held are not usable in the folder any more and were removed from it", len(gone), out.name)
    for reading in (out / "readings").glob("*.json"):
        if reading.stem not in readings:
            reading.unlink(missing_ok=True)


def _reasons(intakes: Sequence[Intake]) -> Counter[str]:
    return Counter(intake.refusal for intake in intakes if intake.refusal)
