"""Normal, benign or malignant, and where: breast ultrasound with and without pretraining, beside MONAI's DenseNet121 and U-Net.

Data: BUSI (Al-Dhabyani et al., Data in Brief 2020). One split by groups of neighbouring numbers of a class, nearly equal images kept
together. A small DenseNet is pretrained by contrast, a ViT by the hybrid, on every training image without labels for half of the steps;
then a classifier of the three classes is fine-tuned from the first and a segmenter of lesions from the second, and both from scratch.
MONAI's networks start from scratch and train for the processor time of the slower arm of their task, pretraining included; masks of its
U-Net are cut at one half, and every network answers for an image and its mirror image. Test images are scored once an arm, and the arm that
stands for medssl in the record is the pretrained classifier, whatever scratch reaches. The images have no patient ids, and calipers in
them are a shortcut for a classifier: nothing here is a claim about breast cancer.

    python -m benchmarks.busi [--data BUSI_FOLDER] [--work FOLDER] [--steps 400]

A run that was stopped goes on where it was.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.lung_ct import TOO_NARROW, cell, options, study, timed
from benchmarks.peers import classifier, masks_of, pictures_of, segmenter
from data_prep.busi import find
from medssl.assets import asset
from medssl.data.dataset import Case, load_cases
from medssl.data.leakage import Leakage
from medssl.data.store import Store
from medssl.evaluation.metric import Metric
from medssl.evaluation.multiclass import ClassUnits, macro_auroc
from medssl.evaluation.segmentation import dice, mean_interval
from medssl.report.cases import read_results
from medssl.report.write import write_report
from medssl.scoring.folder import score_split
from medssl.scoring.predictor import Predictor
from medssl.training.launch import launch_finetune, launch_pretrain

CLASSES = ("benign", "malignant", "normal")
ARMS: Mapping[str, Mapping[str, str]] = {
    "classify": {"scratch": "", "contrastive": "dense_simclr_2d"},
    "segment": {"scratch": "", "hybrid": "hybrid_2d"},
}
OURS = "contrastive"
PEERS = {"classify": "MONAI DenseNet121 from scratch", "segment": "MONAI BasicUNet from scratch"}
NETWORKS = {
    "classify": ("classes/busi_classifier", ["--labels.classes", json.dumps(CLASSES)]),
    "segment": ("classes/busi_segmenter", ["--labels.classes", "[]", "--network.init_args.classes", "1"]),
}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "busi"


def pretrained(recipe: str, work: Path, steps: int) -> tuple[Path | None, float]:
    """The encoder bundle of a recipe and the seconds it took; none from scratch."""
    if not recipe:
        return None, 0.0
    out = work / f"pretrain_{recipe}"
    channels = ["--objective.init_args.encoder.init_args.in_channels", "1"] if recipe == "hybrid_2d" else []
    config = ["--config", str(asset(f"configs/pretrain/{recipe}.yaml")), *channels]
    return out / "bundle", timed(out, lambda: launch_pretrain([*config, *options(out, steps, work / "store")]))


def finetuned(task: str, arm: str, bundle: Path | None, work: Path, steps: int) -> tuple[Path, float]:
    """The lesion bundle of an arm and the seconds it took."""
    out, (name, own) = work / f"{task}_{arm}", NETWORKS[task]
    start = [] if bundle is None else ["--bundle", str(bundle)]
    config = ["--config", str(asset(f"configs/finetune/{name}.yaml")), *own, *start]
    return out / "bundle", timed(out, lambda: launch_finetune([*config, *options(out, steps, work / "store")]))


def scored(bundle: Path, store: Store, out: Path) -> Path:
    """The results folder of the test images, with its report."""
    if not (out / "metrics.json").is_file():
        score_split(Predictor(bundle), store, "test", out)
        write_report(out, out)
    return out


def classified(results: Path) -> Mapping[str, Sequence[float]]:
    """Probabilities of the classes of each test image."""
    found = {case.scan_id: dict(case.finding.class_scores or {}) for case in read_results(results).cases}
    return {scan_id: [scores[name] for name in CLASSES] for scan_id, scores in found.items()}


def outlined(results: Path) -> Mapping[str, float]:
    """Dice of each test image with a lesion; 0 where nothing was found."""
    record = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    return {scan["scan_id"]: scan["dice"] for scan in record["segmentation"]["per_scan"] if scan["true_ml"] > 0}


def peer_classified(train: Sequence[Case], test: Sequence[Case], seconds: float) -> Mapping[str, Sequence[float]]:
    """What DenseNet121 says of each test image."""
    labels = np.array([CLASSES.index(case.row.label) for case in train])
    found = classifier(pictures_of(train), labels, len(CLASSES), seconds)(pictures_of(test))
    return {case.row.scan_id: scores.tolist() for case, scores in zip(test, found, strict=True)}


def peer_outlined(train: Sequence[Case], test: Sequence[Case], seconds: float) -> Mapping[str, float]:
    """Dice of the U-Net at one half, of each test image with a lesion."""
    ill = [case for case in test if len(case.lesion_slices)]
    found = segmenter(pictures_of(train), masks_of(train), seconds)(pictures_of(ill))
    return {case.row.scan_id: dice(mask, truth) or 0.0 for case, mask, truth in zip(ill, found, masks_of(ill).numpy(), strict=True)}


def area(scores: Mapping[str, Sequence[float]], test: Sequence[Case]) -> Metric:
    """Macro AUROC, one class against the rest.

    Groups of images are drawn for its interval; where there are too few, images are, and the note says so.
    """
    truth = np.array([[int(case.row.label == name) for name in CLASSES] for case in test])
    said = np.array([scores[case.row.scan_id] for case in test])
    groups, images = (np.array([getattr(case.row, name) for case in test]) for name in ("patient", "scan_id"))
    grouped, alone = (macro_auroc(ClassUnits("scan", CLASSES, truth, said, units, exclusive=True)) for units in (groups, images))
    return grouped if grouped.ci95 or not alone.ci95 else replace(alone, note=TOO_NARROW)


def overlap(found: Mapping[str, float], test: Sequence[Case]) -> Metric:
    """Mean Dice of images with a lesion; groups of images are drawn for its interval."""
    ill = [case for case in test if case.row.scan_id in found]
    values = np.array([found[case.row.scan_id] for case in ill])
    interval, _ = mean_interval(values, [case.row.patient for case in ill])
    return Metric(float(values.mean()), interval, "bootstrap over groups", len(ill), len(ill))


def main(argv: Sequence[str] | None = None) -> None:
    """Run every arm and print the table, then the pretrained classifier against DenseNet121 as JSON."""
    study(__doc__, DATA, find, compare, argv)


def compare(store: Store, work: Path, steps: int) -> None:
    """Every arm of both tasks, one after the other."""
    splits = {split: load_cases(store, store.manifest.split(split)) for split in ("train", "val", "test")}
    pairs = Leakage.read(store.folder).pairs
    print(
        f"{ {split: len(cases) for split, cases in splits.items()} }; {pairs} pairs of nearly equal images of two groups, kept in one split"
    )
    found: dict[str, dict[str, Metric]] = {"classify": {}, "segment": {}}
    seconds: dict[str, dict[str, float]] = {"classify": {}, "segment": {}}
    for task, metrics in found.items():
        for arm, recipe in ARMS[task].items():
            encoder, before = pretrained(recipe, work, steps // 2)
            bundle, after = finetuned(task, arm, encoder, work, steps)
            results = scored(bundle, store, work / f"test_{task}_{arm}")
            metrics[arm] = area(classified(results), splits["test"]) if task == "classify" else overlap(outlined(results), splits["test"])
            seconds[task][arm] = after + before
    limits = {task: max(spent.values()) for task, spent in seconds.items()}
    found["classify"][PEERS["classify"]] = area(peer_classified(splits["train"], splits["test"], limits["classify"]), splits["test"])
    found["segment"][PEERS["segment"]] = overlap(peer_outlined(splits["train"], splits["test"], limits["segment"]), splits["test"])
    for task, peer in PEERS.items():
        seconds[task][peer] = limits[task]
    report(found, seconds)


def report(found: Mapping[str, Mapping[str, Metric]], seconds: Mapping[str, Mapping[str, float]]) -> None:
    """Print a Markdown table and the record."""
    print("| task | arm | value | seconds of processor |\n|---|---|--:|--:|")
    for task, name in (("classify", "macro AUROC"), ("segment", "Dice")):
        for arm, metric in found[task].items():
            print(f"| {name} | {arm} | {cell(metric)} | {seconds[task][arm]:.0f} |")
    if any(metric.note == TOO_NARROW for metrics in found.values() for metric in metrics.values()):
        print(f"* {TOO_NARROW}")
    values = {task: {arm: float(metric.value or 0) for arm, metric in metrics.items()} for task, metrics in found.items()}
    ours, peer = (values["classify"][arm] for arm in (OURS, PEERS["classify"]))
    record = {"benchmark": "busi", "medssl": ours, "peer": peer, "peer_name": PEERS["classify"], "ratio": ours / peer}
    print(json.dumps(record | {"unit": "macro AUROC", "higher_is_better": True, "all": values}))


if __name__ == "__main__":
    main()
