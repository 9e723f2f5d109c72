"""The `medssl` command: one typed function a command, each a few lines over the library.

Heavy packages are imported inside the commands, so that `--help` answers at once.
"""

import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medssl.arguments import parsed
from medssl.errors import MedSSLError, UsageError
from medssl.files import refusal

if TYPE_CHECKING:
    from medssl.data.preprocess import Preprocess
    from medssl.data.seen import Seen
    from medssl.io.options import ReadOptions

_GO_ON = {
    **dict.fromkeys(("pretrain", "finetune"), "run the same command with --resume true to go on from the newest checkpoint"),
    "demo": "a demo that was stopped while it trained starts anew in another --out",
}

COMMANDS = {
    "demo": "the whole flow, on a generated cohort or on a folder of scans",
    "check": "read every scan of a folder and say what is wrong with it",
    "prepare": "read, split by patient and preprocess a folder of scans into a store",
    "deidentify": "copy a folder of DICOM images without their patients",
    "pretrain": "pretrain an encoder on the unlabelled scans of a store",
    "plan": "write a fine-tuning configuration that fits a store and a memory budget",
    "finetune": "train a lesion classifier, segmenter or detector, from a bundle or from scratch",
    "evaluate": "score a split of a store and write the report",
    "score": "score a folder of scans into a results folder",
    "report": "write the report of a results folder",
    "review": "open the review app on a results folder",
}


def demo(
    *, data: Path | None = None, out: Path = Path("demo-run"), preset: Literal["auto", "smoke"] = "auto", keep_together: bool = False
) -> int:
    """The whole flow: prepare, pretrain, fine-tune, evaluate, score.

    Args:
        data: Folder of real scans; a cohort is generated without it.
        out: Where everything goes.
        preset: `smoke` runs everything in seconds, to see that it runs.
        keep_together: Draw patients with equal or nearly equal scans into one split, instead of stopping with the pairs.
    """
    from medssl.demo import run_demo

    return int(run_demo(out, data=data, preset=preset, say=_say, keep_together=keep_together) > 0)


def check(
    folder: Path,
    *,
    report: Path | None = None,
    four_d: Literal["refuse", "split"] = "refuse",
    pet: Literal["stored", "suv"] = "stored",
    tilt: Literal["shear", "resample"] = "shear",
    units: Literal["stored", "mm"] = "stored",
    workers: int | None = None,
) -> int:
    """Read every scan below a folder.

    Args:
        folder: What to read; nothing in it is changed.
        report: Where the report goes, as JSON.
        four_d: Refuse files of several volumes, or split them into a scan a volume.
        pet: Values of DICOM PET as stored, or as SUV by body weight.
        tilt: Keep the sheared affine of leaning slices, or resample them onto a grid with right angles.
        units: Leave the voxel size of NIfTI files that do not say their unit open, or take it to be in millimetres.
        workers: Processes; one a core by default.
    """
    import json

    from medssl.files import write_text
    from medssl.io.options import ReadOptions
    from medssl.io.read_all import read_all
    from medssl.io.record import intake_report, summary

    records = read_all(folder, ReadOptions(four_d, pet, tilt, units), workers)
    found = intake_report(records)
    if report is not None:
        write_text(report, json.dumps(found, indent=1))
    for record in records:
        if record.reasons:
            _say(f"{record.status:<22} {record.source}  {' '.join(record.reasons)}")
    _show_table(("what", "status", "scans", "why"), summary(records))
    if found["duplicates"]:
        _say(f"{len(found['duplicates'])} groups of scans hold the same voxels: 'duplicates' of the report names them")
    _say("what a reason means, and what to do: docs/intake.md")
    return int(any(record.status == "rejected" for record in records))


def prepare(
    folder: Path,
    *,
    out: Path,
    layout: str | None = None,
    labels: Path | None = None,
    like: Path | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    four_d: Literal["refuse", "split"] = "refuse",
    pet: Literal["stored", "suv"] = "stored",
    tilt: Literal["shear", "resample"] = "shear",
    units: Literal["stored", "mm"] = "stored",
    seed: int = 0,
    workers: int | None = None,
    keep_together: bool = False,
    allow_leakage: str | None = None,
) -> int:
    """Read, split by patient and preprocess a folder of scans.

    Args:
        folder: Scans as table, BIDS, nnU-Net or plain layout.
        out: The store; a run that was stopped goes on where it was.
        layout: Name of the layout, where it is not found by itself.
        labels: Table with labels, patients, masks of lesion or of what was defaced.
        like: Bundle whose preprocessing is used, to evaluate it on these scans; scans that it has learned from are refused.
        spacing_mm: Voxel size of the store, such as [0.8,0.8,2.0]; a 0 keeps each scan's own. The typical one by default.
        four_d: Refuse files of several volumes, or split them into a scan a volume.
        pet: Values of DICOM PET as stored, or as SUV by body weight.
        tilt: Keep the sheared affine of leaning slices, or resample them onto a grid with right angles.
        units: Leave the voxel size of NIfTI files that do not say their unit open, or take it to be in millimetres.
        seed: Of the split.
        workers: Processes; one a core by default.
        keep_together: Draw patients with equal or nearly equal scans into one split, instead of stopping with the pairs.
        allow_leakage: Why equal or nearly equal scans may lie under different patients and splits; every report made from the store
            prints it.
    """
    from medssl.data.leakage import Guard, Leakage
    from medssl.data.prepare import prepare as prepare_store
    from medssl.data.splits import check_seed
    from medssl.io.options import ReadOptions

    check_seed(seed)
    options = ReadOptions(four_d, pet, tilt, units)
    preprocess, seen = (None, {}) if like is None else _like(like, options, spacing_mm)
    written = partial(prepare_store, layout=layout, labels=labels, preprocess=preprocess, spacing_mm=spacing_mm, options=options)
    manifest, rejected = written(folder, out, seed=seed, workers=workers, guard=Guard(allow_leakage or "", seen, keep_together))
    _say(f"{len(manifest.rows)} scans in {out}: {manifest.counts()}; {rejected} left out (reasons in intake.json)")
    if (leakage := Leakage.read(out)).kept_together:
        _say(f"{leakage.pairs} pairs of equal or nearly equal scans of different patients were kept together in one split: leakage.csv")
    return int(rejected > 0)


def _like(like: Path, options: "ReadOptions", spacing_mm: tuple[float, float, float] | None) -> tuple["Preprocess", "Seen"]:
    """The preprocessing of a bundle, and what it has seen; scans are read as for its training."""
    from medssl.io.options import AS_STORED
    from medssl.models.bundle import Bundle

    if spacing_mm is not None:
        raise UsageError("--like takes the spacing of the bundle; leave out --spacing-mm, or --like")
    bundle = Bundle.read(like)
    if options not in (AS_STORED, bundle.preprocess.read):
        raise UsageError(
            "--like reads scans as the bundle's training did; leave out --four-d, --pet, --tilt, --units, or take another bundle"
        )
    return bundle.preprocess, bundle.seen


def deidentify(folder: Path, *, out: Path, key: Path | None = None, new_key: bool = False, force_burned_in: bool = False) -> int:
    """Copy a folder of DICOM images without their patients (DICOM PS3.15 basic profile).

    Args:
        folder: What to read; nothing in it is changed.
        out: Where the copies go, with a table of the files and one of the tags; copies made before are kept.
        key: File with 32 random bytes that the pseudonyms are made with; OUT.key beside the out folder by default.
        new_key: Make the key file where there is none.
        force_burned_in: Copy images too that may have text in their pixels; look at each of them before it is shared.
    """
    from medssl.io.deidentify.folder import deidentify_folder, summary

    rows = deidentify_folder(folder, out, key, new_key=new_key, force_burned_in=force_burned_in)
    _say(f"{summary(rows)} (each file in {out / 'deidentified.csv'}; what the words mean: docs/deidentify.md)")
    return int(any(row.status == "refused" for row in rows))


def plan(store: Path, *, memory_gb: float = 8.0, dims: Literal[2, 3] | None = None, out: Path = Path("plan.yaml")) -> int:
    """Write a fine-tuning configuration that fits a store and a memory budget, to be read, edited and run.

    Args:
        store: What `medssl prepare` wrote.
        memory_gb: What a training step may take, in GB.
        dims: 2 (planes along K, axial) or 3; decided by the scans where it is not given.
        out: The configuration.
    """
    from medssl.training.planning.blueprint_text import write_plan

    planned = write_plan(store, out, memory_gb=memory_gb, dims=dims)
    _say(f"{planned}; run it with: {shlex.join(['medssl', 'finetune', '--config', str(out), '--feed.store', str(store)])} --out RUN")
    return 0


def evaluate(
    bundle: Path,
    store: Path,
    *,
    out: Path,
    split: str = "test",
    robustness: bool = False,
    scans: int | None = None,
    allow_seen: str | None = None,
) -> int:
    """Score a split of a store and write the report.

    Args:
        bundle: A fine-tuned bundle.
        store: What `medssl prepare` wrote.
        out: Results folder with metrics.json and report.html.
        split: Which scans; `all` for a store that shares nothing with training.
        robustness: Score them damaged and repeated too (docs/robustness.md); it says how long that takes.
        scans: At most so many scans for that, drawn by patient.
        allow_seen: Why scans that the bundle has learned from may be scored; the report prints it.
    """
    from medssl.data.store import Store
    from medssl.report.write import write_report
    from medssl.scoring.folder import score_split
    from medssl.scoring.predictor import Predictor
    from medssl.scoring.robustness import score_robustness

    if scans is not None and (scans < 1 or not robustness):
        raise UsageError(f"--scans takes a number from 1 on and goes with --robustness, got {scans}")
    predictor, prepared = Predictor(bundle), Store(store)
    score_split(predictor, prepared, split, out, allow_seen=allow_seen or "")
    if robustness:
        score_robustness(predictor, prepared, split, out, scans=scans)
    write_report(out, out, pdf=True)
    _say(f"report: {out / 'report.html'}")
    return 0


def score(bundle: Path, folder: Path, *, out: Path = Path("results")) -> int:
    """Score every scan below a folder.

    Args:
        bundle: A fine-tuned bundle.
        folder: Scans in any format.
        out: Results folder; scans done before are kept while their files are unchanged.
    """
    from medssl.scoring.folder import score_folder
    from medssl.scoring.predictor import Predictor

    counts = score_folder(Predictor(bundle), folder, out)
    _say(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; look at them with: medssl review {shlex.quote(str(out))}")
    return int(counts.get("rejected", 0) > 0)


def report(
    results: Path, *, reference: Path | None = None, out: Path | None = None, against: list[Path] | None = None, pdf: bool = True
) -> int:
    """Write metrics.json, metrics.csv, scans.csv, report.html and, where there is a Chromium, report.pdf of a results folder.

    Args:
        results: What `score` or `evaluate` wrote.
        reference: Table with the truth: scan_id, label and, where known, lesion, patient, site, age, sex, vendor, field, slice_mm.
        out: Where the report goes; the results folder itself by default.
        against: Results of another model on the same scans, to compare with; may be given several times.
        pdf: Print it to PDF too.
    """
    from medssl.report.write import write_report
    from medssl.scoring.looks import log_report

    log_report(results, reference)
    write_report(results, out or results, reference=reference, against=against or (), pdf=pdf)
    _say(f"report: {(out or results) / 'report.html'}")
    return 0


def review(results: Path, *, port: int = 8501, headless: bool = False) -> int:
    """Open the review app on a results folder, for this machine only.

    Args:
        results: What `score` or `evaluate` wrote.
        port: Port on 127.0.0.1.
        headless: Open no browser.
    """
    from medssl.assets import app_command, run_app

    command = app_command(results, port=port, headless=headless)
    print(f"review app: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    run_app(command)
    return 0


_PLAIN: dict[str, Callable[..., int]] = {
    "demo": demo,
    "check": check,
    "prepare": prepare,
    "deidentify": deidentify,
    "plan": plan,
    "evaluate": evaluate,
    "score": score,
    "report": report,
    "review": review,
}


def main(args: list[str] | None = None) -> int:
    """Run a command; a MedSSLError, or what the system refuses, becomes one line on stderr and an exit code."""
    arguments = sys.argv[1:] if args is None else args
    if not arguments or arguments[0] in ("-h", "--help"):
        _say(_help())
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("medssl").setLevel(logging.INFO)
    try:
        return _run(arguments[0], arguments[1:])
    except MedSSLError as error:
        return _fail(error)
    except OSError as error:
        return _fail(refusal(error))
    except KeyboardInterrupt:
        sys.stderr.write(f"medssl: stopped; {_GO_ON.get(arguments[0], 'run the same command again to go on')}\n")
        return 130


def _fail(error: MedSSLError) -> int:
    sys.stderr.write(f"medssl: {error}\n")
    return error.exit_code


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        raise UsageError(f"no command {command!r}; there are {', '.join(COMMANDS)}")
    warnings.filterwarnings("ignore")  # a user reads one line, not the deprecations of libraries; tests see them
    if command in ("pretrain", "finetune"):
        return _train(command, arguments)
    function = _PLAIN[command]
    return function(**parsed(function, arguments, command))


def _train(command: str, arguments: list[str]) -> int:
    from medssl.training.help import FULL, short_help

    if not {"-h", "--help"}.isdisjoint(arguments):
        _say(short_help(command))
        return 0
    from medssl.models.bundle import Bundle
    from medssl.training.launch import launch
    from medssl.training.planning.cost import Plan
    from medssl.training.scale.cluster import Submitted

    outcome = launch(command, ["--help" if argument == FULL else argument for argument in arguments], finish=_write_out_of_fold)
    if isinstance(outcome, Bundle):
        _say(f"bundle {outcome.model_id} written")
    elif isinstance(outcome, Submitted):
        _say(f"job {outcome.job_id} submitted; its logs go to {outcome.logs}")
    elif isinstance(outcome, Plan):
        _show_table(["plan", ""], outcome.rows())
    return 0


def _write_out_of_fold(run: Path) -> None:
    from medssl.scoring.out_of_fold import has_folds, write_out_of_fold

    if has_folds(run):
        write_out_of_fold(run)
        _say(f"out-of-fold results in {run.name}/out_of_fold; medssl report {run.name}/out_of_fold gives cross-validated numbers")


def _help() -> str:
    return "\n".join(
        [
            "usage: medssl COMMAND [...]      (medssl COMMAND --help for its options)",
            "",
            "Self-supervised lesion detectors from unlabelled scans. Research use only; not a medical device.",
            "",
            *(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
            "",
            "exit codes: 0 done, 1 done with scans rejected, 2 usage, 3 conflict, 4 unsafe or corrupt model, 5 no space, 130 stopped",
        ]
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(str, row))
    Console(soft_wrap=True).print(table)
