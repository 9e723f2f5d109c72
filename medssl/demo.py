"""The demo: every stage in a row, through the same functions that the commands call."""

import copy
import logging
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from medssl.assets import asset
from medssl.data.classes import scan_label
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.prepare import Guard, prepare, read_row
from medssl.data.store import Index, Store
from medssl.errors import ConflictError, ManifestError
from medssl.files import write_text
from medssl.report.write import write_report
from medssl.scoring.folder import reference_row, score_folder, score_split
from medssl.scoring.predictor import Predictor
from medssl.scoring.results import REFERENCE_COLUMNS, ResultsFolder, table

logger = logging.getLogger(__name__)

Config = dict[str, Any]


def run_demo(
    out: Path, *, data: Path | None, preset: Literal["auto", "smoke"], say: Callable[[str], object], keep_together: bool = False
) -> int:
    """Run every stage; returns how many scans were left out.

    Args:
        out: `cohort`, `store`, `pretrain`, `finetune`, `evaluation` and `results` go here; a store of the same scans is used again.
        data: Folder of real scans, None for a generated cohort.
        preset: `smoke` for seconds instead of minutes.
        say: Tells the user a line.
        keep_together: Patients with equal or nearly equal scans go into one split, instead of stopping with the pairs.

    Raises:
        ConflictError: `out` holds a demo already.
        ManifestError: Scans without labels, of which a demo has to learn.
    """
    folder = data or out / "cohort"
    if (out / "pretrain").exists() or _is_of_others(out / "store", folder):
        raise ConflictError(f"{out} holds a demo already; give another --out, or delete it")
    start = time.monotonic()
    config = _preset(preset, real=data is not None)
    if data is None:
        _make_cohort(folder, config["cohort"])
    manifest, rejected = prepare(folder, out / "store", seed=config["seed"], guard=Guard(keep_together=keep_together))
    say(f"[{_clock(start)}] {len(manifest.rows)} scans of {len({row.patient for row in manifest.rows})} patients, {rejected} left out")
    _check_labels(manifest, out / "store")
    _train(out, config, say)
    say(f"[{_clock(start)}] pretrained and fine-tuned; evaluating the test patients")
    predictor = Predictor(out / "finetune" / "bundle")
    score_split(predictor, Store(out / "store"), "test", out / "evaluation")
    write_report(out / "evaluation", out / "evaluation")
    _score_unseen(predictor, folder, out)
    say(f"[{_clock(start)}] done")
    say(f"report:     {out / 'evaluation' / 'report.html'}")
    say(f"review app: medssl review {shlex.quote(str(out / 'results'))}")
    return rejected


def _task(manifest: Manifest) -> str:
    return "segment" if any(row.lesion for row in manifest.rows) else "classify"


def _check_labels(manifest: Manifest, store: Path) -> None:
    """Whether there is something to fine-tune and to choose thresholds on, before hours of pretraining; without, the store goes again."""
    segments = _task(manifest) == "segment"
    train, val = (
        Counter(scan_label(row) for row in manifest.split(split) if not segments or row.lesion or scan_label(row) == 0)
        for split in ("train", "val")
    )
    if train[1] and (train[0] or segments) and val[0] + val[1]:
        return
    shutil.rmtree(store)  # with a table its grid may be another one
    raise ManifestError(
        "no_rows",
        f"a demo learns from labels; of the scans to learn from {train[1]} are known to have a lesion and {train[0]} to have none, "
        f"of those to choose thresholds on {val[1]} and {val[0]}; put a table patients.csv with image, patient, lesion and/or label "
        "into the folder and run the same command again",
    )


def _preset(preset: str, *, real: bool) -> Config:
    name = "smoke" if preset == "smoke" else "demo_scans" if real else "demo"
    config: Config = yaml.safe_load(asset(f"configs/{name}.yaml").read_text(encoding="utf-8"))
    return config


def _make_cohort(folder: Path, settings: Config) -> None:
    from medssl.phantom import make_cohort

    make_cohort(folder, patients=settings["patients"], seed=settings["seed"])


def _is_of_others(store: Path, folder: Path) -> bool:
    """Whether a store is there already, and not of the scans of this demo."""
    index = Index.read(store)
    return index is not None and (store.resolve() / index.source).resolve() != folder.resolve()


def _train(out: Path, config: Config, say: Callable[[str], object]) -> None:
    """Pretrain and fine-tune from configuration files that are written first, so that each can be run again by hand."""
    from medssl.training.launch import launch_finetune, launch_pretrain

    store = Store(out / "store")
    channels = store.image(store.manifest.rows[0]).shape[0]
    pretrain = _fit_to(config["pretrain"], store.folder, channels)
    whole = {**config["finetune"], **config[_task(store.manifest)], "bundle": str(out / "pretrain" / "bundle")}
    finetune = _fit_to(whole, store.folder, channels)
    for name, settings in (("pretrain", pretrain), ("finetune", finetune)):
        (out / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    for name, title, launch in (("pretrain", "pretraining", launch_pretrain), ("finetune", "fine-tuning", launch_finetune)):
        arguments = ["--config", str(out / f"{name}.yaml"), "--out", str(out / name)]
        say(f"{title}: {shlex.join(['medssl', name, *arguments])}")
        launch(arguments)


def _fit_to(settings: Config, store: Path, channels: int) -> Config:
    """The settings with the store filled in and the encoder's channels multiplied by those of the scans."""
    fitted = copy.deepcopy(settings)
    fitted["feed"]["store"] = str(store)
    holder = fitted.get("objective") or fitted["network"]
    arguments = holder["init_args"]["encoder"]["init_args"] if "encoder" in holder["init_args"] else holder["init_args"]
    arguments["in_channels"] = channels * fitted["feed"]["crops"].get("context", 1)
    return fitted


def _score_unseen(predictor: Predictor, folder: Path, out: Path) -> None:
    """Score the test patients again as a user would, from their files, and put the truth beside the results."""
    rows = [
        row for row in Store(out / "store").manifest.split("test") if (folder / row.image).exists()
    ]  # not those in archives, nor of several files
    if not rows:
        return
    unseen = out / "unseen"
    for row in rows:
        _copy(folder / row.image, unseen / row.image)
    score_folder(predictor, unseen, out / "results")
    shutil.rmtree(unseen)
    _write_reference(folder, rows, out / "results")
    write_report(out / "results", out / "results")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _write_reference(folder: Path, rows: Sequence[ManifestRow], results: Path) -> None:
    """The truth of the scored scans, on their own grid, found again by their source."""
    scan_ids = {finding.source: finding.scan_id for finding in ResultsFolder(results, "").findings()}
    known = [(row, scan_ids[row.image]) for row in rows if row.image in scan_ids]
    lines = [{**reference_row(row), "scan_id": scan_id, "lesion": _write_lesion(folder, row, results, scan_id)} for row, scan_id in known]
    write_text(results / "reference.csv", table(REFERENCE_COLUMNS, lines))


def _write_lesion(folder: Path, row: ManifestRow, results: Path, scan_id: str) -> str:
    """Write the true mask of a scan, empty for one known to have none; returns its path, empty where it is not known."""
    image, lesion = read_row(folder, row)
    if lesion is None and scan_label(row) != 0:
        return ""
    mask = np.zeros(image.shape, np.uint8) if lesion is None else (lesion.array[0] > 0).astype(np.uint8)
    return ResultsFolder(results, "").add_lesion(scan_id, mask, image.affine)


def _clock(start: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    return f"{minutes}:{seconds:02d}"
