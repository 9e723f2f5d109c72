"""Scoring of many scans: a folder of files, or a split of a store, into a results folder."""

import datetime
import hashlib
import importlib.metadata
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from medssl.data.agreement import check_agreement
from medssl.data.classes import scan_label
from medssl.data.dataset import Case, load_cases
from medssl.data.leakage import Guard
from medssl.data.manifest import ManifestRow
from medssl.data.seen import overlap, refuse_seen
from medssl.data.store import Store, decode
from medssl.errors import ManifestError, ScanError, UsageError
from medssl.files import write_text
from medssl.io.discover import Source, find_sources, read_source
from medssl.scoring.finding import Finding
from medssl.scoring.looks import Look, log_look
from medssl.scoring.predictor import Predictor, Result
from medssl.scoring.results import REFERENCE_COLUMNS, ResultsFolder, table
from medssl.volume import Volume

_NOT_COMPARED = (
    "The scans were not compared with those that the model has learned from: whether this is an independent test is not known. "
    "medssl evaluate on a store compares them."
)

logger = logging.getLogger(__name__)


def score_folder(predictor: Predictor, folder: Path, out: Path) -> dict[str, int]:
    """Score every scan below a folder but for the maps of `out`; scans done before whose files are those of then are kept.

    A bad scan stops nothing.

    Returns:
        How many scans have which status.

    Raises:
        UsageError: The folder is missing or holds no scan.
        ConflictError: `out` belongs to another model.
    """
    found = find_sources(folder, predictor.bundle.preprocess.read)
    sources = [source for source in found if not source.path.is_relative_to(out.resolve() / "maps")]
    if not sources:
        raise UsageError(f"no_files: {folder.name} holds no scan; give a folder with files of a format that docs/intake.md names")
    results = ResultsFolder(out, predictor.bundle.model_id)
    results.open({**run_facts(predictor, split=None), "leakage": [*_allowed(predictor), _NOT_COMPARED]})
    for source in track(sources, "scoring"):
        _score_source(predictor, source, results)
    others = results.scan_ids() - {source.scan_id for source in sources}
    if others:
        logger.warning("%s keeps findings of scans that are not in %s: %d", out.name, folder.name, len(others))
    return results.finish({})


def _score_source(predictor: Predictor, source: Source, results: ResultsFolder) -> None:
    stamp = _stamp(source)
    if results.has(source.scan_id, stamp=stamp):
        return
    reading = read_source(source, fingerprint=False)
    record = reading.record
    if reading.volume is None:
        logger.info("%s rejected: %s", record.scan_id, " ".join(record.reasons))
        results.record(_rejected(predictor, record.scan_id, record.source, record.reasons))
        return
    try:
        result = predictor.score(reading.volume, scan_id=record.scan_id, source=record.source, warnings=record.reasons)
    except ScanError as error:
        results.record(_rejected(predictor, record.scan_id, record.source, (error.code,)))
        return
    results.add(result)
    results.remember(record.scan_id, stamp)


def _stamp(source: Source) -> str:
    """A digest of where a scan lies and of its files, as the file system tells them apart."""
    paths = source.paths if source.packed is None else [source.packed.archive]
    return hashlib.sha256("\n".join([source.source, *sorted(map(_facts, paths))]).encode(errors="surrogateescape")).hexdigest()


def _facts(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return f"{path.name} absent"  # reading the scan says why
    return f"{path.name} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def score_split(predictor: Predictor, store: Store, split: str, out: Path, *, allow_seen: str = "") -> dict[str, int]:
    """Score one split of a store (or `all`), with the truth beside the findings.

    Args:
        predictor: The model.
        store: Where the scans are.
        split: Which of them.
        out: The results folder.
        allow_seen: Why scans that the model has learned from may be scored; empty refuses them.

    Returns:
        How many scans have which status.

    Raises:
        ManifestError: The split is empty; `patient_leak` when the model has learned from its scans and nobody allows that;
            `label_mismatch` or `bad_label` where labels and masks contradict each other, before anything is scored.
        UsageError: The store was prepared in another way than the bundle's.
    """
    if store.preprocess != predictor.bundle.preprocess:
        raise UsageError("the store was prepared in another way than the bundle's training store; prepare it with --like BUNDLE")
    rows = store.manifest.rows if split == "all" else store.manifest.split(split)
    if not rows:
        raise ManifestError("no_rows", f"the store has no scan in split {split!r}; its splits are in manifest.csv")
    leakage = _leakage(predictor, store, rows, Guard(allow_seen).reason)
    cases = load_cases(store, rows, classes=predictor.classes)
    check_agreement(cases)
    results = ResultsFolder(out, predictor.bundle.model_id)
    results.open({**run_facts(predictor, split=split), "leakage": leakage, "intake": _intake(store), "scans_sha256": _content(store, rows)})
    log_look(_look(predictor, store, split, len(rows)), store=store.folder, results=out)
    for case in track(cases, "scoring"):
        if not results.has(case.row.scan_id):
            _score_case(predictor, store, case, results)
    write_text(out / "reference.csv", table(REFERENCE_COLUMNS, (reference_row(row, predictor.bundle.class_names) for row in rows)))
    return results.finish({"nominal": all(row.nominal for row in rows)})


def _content(store: Store, rows: Sequence[ManifestRow]) -> str:
    """A hash of what is scored: the scans, their voxels and their masks."""
    return hashlib.sha256(json.dumps([(row.scan_id, *store.index.scans[row.scan_id]) for row in rows]).encode()).hexdigest()


def _intake(store: Store) -> dict[str, object]:
    """What came before the split: scans found by `medssl prepare`, those it refused by reason, and the splits; empty when not recorded."""
    try:
        scans = json.loads((store.folder / "intake.json").read_text(encoding="utf-8"))["scans"]
        refused = Counter(str(code) for scan in scans if scan["status"] == "rejected" for code in scan["reasons"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {"found": len(scans), "rejected_by_code": dict(refused), "splits": dict(Counter(row.split for row in store.manifest.rows))}


def _look(predictor: Predictor, store: Store, split: str, scans: int) -> Look:
    bundle, digest = predictor.bundle, store.manifest.digest()
    points = bundle.operating_points
    return Look.now("scored", model_id=bundle.model_id, split=split, scans=scans, manifest_sha256=digest, points=points)


def _leakage(predictor: Predictor, store: Store, rows: Sequence[ManifestRow], reason: str) -> list[str]:
    """What a report must say of scans that the model has seen, and of leakage that was allowed in a store on the way here.

    A reason that the store was given for copies among its own scans is none to score what a model has learned from; one that it was given
    when its scans were held against a bundle is.
    """
    found = overlap(predictor.bundle.seen, rows, store.signs(rows), around=store.manifest.rows)
    if not reason and not (store.leakage.reason and store.leakage.seen):
        refuse_seen(found, "say why they may be scored with --allow-seen REASON")
    given = [f"Scans that the model has learned from were allowed. The reason given: {reason}"] if reason and found.learned else []
    return [*given, *store.leakage.sentences(), *_allowed(predictor, known=store.leakage.reason), *found.sentences(len(rows))]


def _allowed(predictor: Predictor, *, known: str = "") -> list[str]:
    """Leakage that was allowed in the stores that a model was trained on; a reason that is known already is not said again."""
    elsewhere = [reason for reason in predictor.bundle.seen.get("allowed", ()) if reason != known]
    return [f"Leakage was allowed in a store that this model was trained on. The reason given: {reason}" for reason in elsewhere]


def _score_case(predictor: Predictor, store: Store, case: Case, results: ResultsFolder) -> None:
    row = case.row
    prepared = Volume(decode(store.image(row)), store.geometry(row), row.modality, row.nominal)
    result = predictor.score_prepared(prepared, scan_id=row.scan_id, source=row.image)
    add_with_truth(results, result, case)


def add_with_truth(results: ResultsFolder, result: Result, case: Case) -> None:
    """Write a result with the true masks beside it, where they are known."""
    results.add(result, lesion=_known(case, case.lesion), true_classes=_known(case, case.class_mask()))


def _known(case: Case, mask: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """The true mask (I, J, K): zeros for a scan known to have none, None where it is not known."""
    if mask is not None:
        return np.asarray(mask[0])
    return np.zeros(case.shape[1:], np.uint8) if scan_label(case.row) == 0 else None


def reference_row(row: ManifestRow, positive: Sequence[str] = ()) -> dict[str, object]:
    """The truth of a scan as a row of `reference.csv`; `positive` are the classes that the model calls positive."""
    label = scan_label(row, positive)
    return {
        "scan_id": row.scan_id,
        "patient": row.patient,
        "site": row.site,
        "label": "" if label < 0 else label,
        "lesion": f"maps/{row.scan_id}_lesion.nii.gz" if row.lesion or scan_label(row) == 0 else "",
        "split": row.split,
        "age": row.age,
        "sex": row.sex,
        "vendor": row.vendor,
        "field": row.field,
        "slice_mm": row.slice_mm,
        "class": row.label,
    }


def _rejected(predictor: Predictor, scan_id: str, source: str, reasons: tuple[str, ...]) -> Finding:
    return Finding(
        scan_id=scan_id,
        status="rejected",
        source=source,
        modality="",
        nominal=False,
        shape=None,
        spacing_mm=None,
        score=None,
        threshold=None,
        verdict="",
        slice_scores=(),
        lesions=(),
        model_id=predictor.bundle.model_id,
        warnings=reasons,
    )


def run_facts(predictor: Predictor, *, split: str | None) -> dict[str, object]:
    """What `run.json` says of the model and of what is scored."""
    bundle = predictor.bundle
    return {
        "task": bundle.kind,
        "level": "slice" if predictor.network.spatial_dims == 2 and not predictor.network.bags else "scan",
        "config_hash": bundle.training.get("config_hash"),
        "versions": {**bundle.versions, "medssl": importlib.metadata.version("medssl")},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "split": split,
        "class_names": list(bundle.class_names),
        "classes": {"names": list(bundle.outputs.names), "exclusive": bundle.outputs.exclusive},
        "operating_points": bundle.operating_points,
        "calibration": bundle.calibration,
        "training": bundle.training,
        "architecture": asdict(bundle.architecture),
        "preprocess": bundle.preprocess.as_dict(),
        "lineage": list(bundle.lineage),
        "nominal": False,
    }
