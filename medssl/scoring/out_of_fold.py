"""The results of a cross-validation: each scan with what the network of the fold that had not learned from its patient says."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.progress import track

from medssl.data.dataset import Case, load_cases
from medssl.data.held_out import FOLDER, read_output
from medssl.data.manifest import ManifestRow
from medssl.data.seen import Overlap, overlap
from medssl.data.store import Store, decode
from medssl.files import write_text
from medssl.models.bundle import Bundle
from medssl.scoring.folder import add_with_truth, reference_row, run_facts
from medssl.scoring.predictor import Predictor
from medssl.scoring.results import REFERENCE_COLUMNS, ResultsFolder, table
from medssl.volume import Volume

RESULTS = "out_of_fold"


def has_folds(run: Path) -> bool:
    """Whether a run folder ends with the bundle of all its folds."""
    record = run / "bundle" / "bundle.json"
    return record.is_file() and "folds" in json.loads(record.read_text(encoding="utf-8"))["training"]


def write_out_of_fold(run: Path) -> dict[str, int]:
    """Write `RUN/out_of_fold`, a results folder with its reference, from what the folds have kept; scans done before are kept.

    Args:
        run: The folder of a finished `medssl finetune` with folds; its store must lie where it did.

    Returns:
        How many scans have which status.

    Raises:
        ConflictError: The folder holds results of another model.
    """
    store = Store(Path(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["feed"]["store"]))
    predictor = Predictor(run / "bundle")
    folds = list(_folds(run, store))
    rows = [row for _, held in folds for row in held]
    results = ResultsFolder(run / RESULTS, predictor.bundle.model_id)
    results.open({**run_facts(predictor, split="cross-validation"), "leakage": _said(predictor.bundle, store, folds)})
    for folder, held in folds:
        for case in track(load_cases(store, held, classes=predictor.classes), folder.name, transient=True):
            if not results.has(case.row.scan_id):
                _add(predictor, store, case, folder, results)
    write_text(
        results.folder / "reference.csv", table(REFERENCE_COLUMNS, (reference_row(row, predictor.bundle.class_names) for row in rows))
    )
    return results.finish({"nominal": all(row.nominal for row in rows)})


def _folds(run: Path, store: Store) -> Iterator[tuple[Path, list[ManifestRow]]]:
    """The run folder of each fold and the scans held out from it."""
    rows = {row.scan_id: row for row in store.manifest.rows}
    for folder in sorted((run / "folds").iterdir(), key=lambda path: int(path.name)):
        yield folder, [rows[path.stem] for path in sorted((folder / FOLDER).glob("*.npz"))]


def _add(predictor: Predictor, store: Store, case: Case, folder: Path, results: ResultsFolder) -> None:
    row = case.row
    prepared = Volume(decode(store.image(row)), store.geometry(row), row.modality, row.nominal)
    channels = torch.from_numpy(read_output(folder / FOLDER, row.scan_id))
    add_with_truth(results, predictor.score_output(prepared, channels, scan_id=row.scan_id, source=row.image), case)


def _said(bundle: Bundle, store: Store, folds: Sequence[tuple[Path, Sequence[ManifestRow]]]) -> list[str]:
    """What a report must say of numbers that come from a cross-validation."""
    facts: dict[str, Any] = dict(bundle.training["folds"])  # type: ignore[call-overload]
    seen = [_seen(folder, store, held) for folder, held in folds]
    labelled = sum(len(one.labelled) for one in seen)
    learned = sum(len(one.learned) for one in seen) - labelled
    scans = sum(len(held) for _, held in folds)
    said = [
        f"Cross-validation: each of {scans} scans was scored by the network of the fold that had not learned from its patient "
        f"({facts['count']} folds by {facts['by']}, of the splits {', '.join(facts['splits'])})."
    ]
    if {row.split for row in store.manifest.rows} <= set(facts["splits"]):
        said.append("No test split was kept aside: these cross-validated numbers are the only ones that this store can give.")
    said.append("The thresholds were chosen on these scores: rates and masks at them are a little too good, areas under curves are not.")
    if learned:
        said.append(f"{learned} of {scans} scans were in the pretraining of the networks, without their labels: no independent test.")
    if labelled:
        said.append(
            f"{labelled} of {scans} scans, near copies of them or other scans of their patients were in the training of the network that "
            "scored them, with their labels: no independent test."
        )
    return [*said, *store.leakage.sentences()]


def _seen(folder: Path, store: Store, held: Sequence[ManifestRow]) -> Overlap:
    """Scans held out from a fold that its network has learned from all the same: in pretraining, or as a copy of them."""
    return overlap(Bundle.read(folder / "bundle").seen, held, store.signs(held), around=store.manifest.rows)
