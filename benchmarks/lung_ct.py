"""Masked, contrastive, hybrid or no pretraining for malignancy on chest CT slices, and a DenseNet121 of MONAI beside them.

Data: IQ-OTH/NCCD (Alyasriy, AL-Huseiny, Mendeley Data). All arms share one split by groups of neighbouring numbers, in which nearly equal
images are kept together; their pairs are counted and printed. The encoder of all arms is a small DenseNet, which sees every training
image without labels for half as many steps as it is then fine-tuned for with all training labels; the hybrid is contrastive first and
masked then.
DenseNet121 starts from scratch and trains for the processor time of the slowest arm, pretraining included. Every network answers for a
slice and its mirror image. Thresholds come from validation images; test images are scored once an arm. The arm that stands for medssl in
the record is the hybrid, whatever the others reach. The images have no patient ids: patients may be in two groups, and nothing here is a
claim about lung cancer.

    python -m benchmarks.lung_ct [--data LUNG_CT_FOLDER] [--work FOLDER] [--steps 400]

A run that was stopped goes on where it was.
"""

import argparse
import datetime
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers import classifier, pictures_of
from data_prep.lung_ct import find
from medssl.assets import asset
from medssl.data.dataset import load_cases
from medssl.data.leakage import Guard, Leakage
from medssl.data.manifest import Manifest, ManifestRow, name_rows
from medssl.data.prepare import prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.evaluation.classification import Units, assess
from medssl.evaluation.metric import Metric
from medssl.evaluation.operating_point import choose
from medssl.scoring.finding import Finding
from medssl.scoring.folder import score_split
from medssl.scoring.predictor import Predictor
from medssl.training.launch import launch_finetune, launch_pretrain

MASKED, CONTRASTIVE = "dense_simmim_2d", "dense_simclr_2d"
ARMS: Mapping[str, tuple[str, ...]] = {
    "scratch": (),
    "masked": (MASKED,),
    "contrastive": (CONTRASTIVE,),
    "hybrid": (CONTRASTIVE, MASKED),  # one after the other, half of the steps each
}
PEER, OURS = "MONAI DenseNet121 from scratch", "hybrid"
SIDE, RULE, POSITIVE = 160, "youden midway", "malignant"
TOO_NARROW = "too few groups of images to draw them: this interval takes images as independent, and is too narrow"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "lung_ct"

Scores = Mapping[str, float]
Find = Callable[[Path], Iterable[ManifestRow]]
Compare = Callable[[Store, Path, int], None]


def open_store(find: Find, data: Path, work: Path) -> Store:
    """The store of a data set, split once, nearly equal images in one split."""
    table = work / "images.csv"
    if not table.is_file():
        Manifest(tuple(name_rows(find(data)))).write(table)
    grid = Preprocess(matrix=(SIDE, SIDE), intensity="percentile")
    prepare(data, work / "store", labels=table, preprocess=grid, guard=Guard(keep_together=True))
    return Store(work / "store")


def options(out: Path, steps: int, store: Path) -> list[str]:
    """One slice a sample, the whole picture a crop, float32 as the peer has it; a run that was stopped goes on."""
    crops = ["--feed.crops.size", f"[{SIDE}, {SIDE}]", "--feed.crops.context", "1", "--feed.store", str(store)]
    resume = str((out / "config.yaml").is_file()).lower()
    return [*crops, "--training.steps", str(steps), "--training.precision", "32-true", "--out", str(out), "--resume", resume]


def timed(out: Path, run: Callable[[], object]) -> float:
    """Seconds of processor time of a run, over all its stretches but those that were killed."""
    record = out / "seconds.json"
    spent = float(json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else 0.0
    if not (out / "bundle").is_dir():
        start = time.process_time()
        try:
            run()
        finally:
            spent += time.process_time() - start
            if out.is_dir():
                record.write_text(json.dumps(spent), encoding="utf-8")
    return spent


def pretrained(arm: str, work: Path, steps: int) -> tuple[Path | None, float]:
    """The encoder bundle of an arm and the seconds it took; none from scratch."""
    bundle, seconds = None, 0.0
    for stage, name in enumerate(ARMS[arm]):
        out = work / f"pretrain_{arm}_{stage}"
        config = ["--config", str(asset(f"configs/pretrain/{name}.yaml")), *([] if bundle is None else ["--bundle", str(bundle)])]
        run = partial(launch_pretrain, [*config, *options(out, steps // len(ARMS[arm]), work / "store")])
        seconds += timed(out, run)
        bundle = out / "bundle"
    return bundle, seconds


def finetuned(arm: str, bundle: Path | None, work: Path, steps: int) -> tuple[Path, float]:
    """The lesion bundle of an arm and the seconds it took."""
    out = work / f"finetune_{arm}"
    config = ["--config", str(asset("configs/finetune/dense_classifier_2d.yaml"))]
    start = [] if bundle is None else ["--bundle", str(bundle)]
    labels = ["--labels.positive", f"[{POSITIVE}]", "--labels.rule", RULE]
    return out / "bundle", timed(out, lambda: launch_finetune([*config, *start, *labels, *options(out, steps, work / "store")]))


def scored(bundle: Path, store: Store, split: str, out: Path) -> Scores:
    """Probability of malignancy of each image of a split."""
    score_split(Predictor(bundle), store, split, out)
    findings = [Finding.read(path) for path in sorted((out / "scans").glob("*.json"))]
    return {finding.scan_id: finding.score for finding in findings if finding.score is not None}


def peer_scores(store: Store, seconds: float) -> tuple[Scores, Scores]:
    """What a DenseNet121 says of validation and test images after so many seconds of training."""
    train, *others = (load_cases(store, store.manifest.split(split)) for split in ("train", "val", "test"))
    names = sorted({case.row.label for case in train})
    told = classifier(pictures_of(train), np.array([names.index(case.row.label) for case in train]), len(names), seconds)
    column = names.index(POSITIVE)
    val, test = ({case.row.scan_id: float(p) for case, p in zip(part, told(pictures_of(part))[:, column], strict=True)} for part in others)
    return val, test


def judged(val: Scores, test: Scores, store: Store) -> Mapping[str, Metric]:
    """The numbers of the test images at a threshold from the validation images.

    Intervals draw groups of images; where there are too few groups for that, they take images as independent, and the note says so.
    """
    cases = {case.row.scan_id: case for split in ("val", "test") for case in load_cases(store, store.manifest.split(split))}
    labels = {name: int(case.row.label == POSITIVE) for name, case in cases.items()}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    point = choose([labels[name] for name in val], list(val.values()), unit="scan", rule=RULE, locked_at=now)
    units = Units.of(
        "scan",
        labels=[labels[name] for name in test],
        scores=list(test.values()),
        patients=[cases[name].row.patient for name in test],
    )
    grouped, alone = (assess(units, threshold=point.threshold, clustered=clustered) for clustered in (True, False))
    return {
        name: metric if metric.ci95 or not alone[name].ci95 else replace(alone[name], note=TOO_NARROW) for name, metric in grouped.items()
    }


def rows(found: Mapping[str, Mapping[str, Metric]], seconds: Mapping[str, float]) -> list[str]:
    """A Markdown table."""
    names = ("auroc", "sensitivity", "specificity")
    lines = ["| arm | AUROC | sensitivity | specificity | seconds of processor |", "|---|--:|--:|--:|--:|"]
    for arm, metrics in found.items():
        cells = [cell(metrics[name]) for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} | {seconds[arm]:.0f} |")
    return lines


def cell(metric: Metric) -> str:
    """A number and its interval, with a star where that takes images as independent."""
    star = "*" if metric.note == TOO_NARROW else ""
    interval = "" if metric.ci95 is None else f" ({metric.ci95[0]:.3f} to {metric.ci95[1]:.3f}){star}"
    return "-" if metric.value is None else f"{metric.value:.3f}{interval}"


def study(about: str | None, data: Path, find: Find, compare: Compare, argv: Sequence[str] | None) -> None:
    """Read the command line of a benchmark on images and run it, where its data are there."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, help="folder of images as the script of this name in data_prep/ reads it")
    parser.add_argument("--work", type=Path, default=Path("runs") / data.name, help="where runs are kept")
    parser.add_argument("--steps", type=int, default=400, help="of each fine-tuning; of pretraining half as many")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if not given.data.is_dir():
        print(f"no images at {given.data.name}; give their folder with --data")
        return
    given.work.mkdir(parents=True, exist_ok=True)
    compare(open_store(find, given.data, given.work), given.work, given.steps)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every arm and print the table, then the hybrid against DenseNet121 as JSON."""
    study(__doc__, DATA, find, compare, argv)


def compare(store: Store, work: Path, steps: int) -> None:
    """Every arm, one after the other."""
    sizes = {split: len(store.manifest.split(split)) for split in ("train", "val", "test")}
    print(f"{sizes}; {Leakage.read(store.folder).pairs} pairs of equal or nearly equal images of two groups, kept in one split")
    found, seconds = {}, {}
    for arm in ARMS:
        start, before = pretrained(arm, work, steps // 2)
        bundle, after = finetuned(arm, start, work, steps)
        val, test = (scored(bundle, store, split, work / f"{split}_{arm}") for split in ("val", "test"))
        found[arm], seconds[arm] = judged(val, test, store), before + after
    seconds[PEER] = max(seconds.values())
    found[PEER] = judged(*peer_scores(store, seconds[PEER]), store)
    print("\n".join(rows(found, seconds)))
    if any(metric.note == TOO_NARROW for metrics in found.values() for metric in metrics.values()):
        print(f"* {TOO_NARROW}")
    areas = {arm: float(metrics["auroc"].value or 0) for arm, metrics in found.items()}
    record = {"benchmark": "lung_ct", "medssl": areas[OURS], "peer": areas[PEER], "peer_name": PEER, "ratio": areas[OURS] / areas[PEER]}
    print(json.dumps(record | {"unit": "AUROC", "higher_is_better": True, "arms": areas}))


if __name__ == "__main__":
    main()
