"""Which pretraining helps most on TCGA-LGG when few patients are labelled?

All arms share the encoder, the crops and about the time of pretraining, on every scan of the training patients without labels; then follow
(a) a logistic regression on frozen features of slices and (b) fine-tuning of a segmenter, both on the same few labelled patients, three
draws of them. Thresholds come from validation patients; test patients are scored once an arm and draw. From scratch there are two arms,
since new weights may want another rate than pretrained ones; the others are compared with the better one of them.

    python -m benchmarks.lgg_pretraining [--data LGG_FOLDER] [--work FOLDER] [--patients 8] [--seeds 3] [--steps 900]

Takes about five hours of one core. A run that was stopped goes on where it was.
"""

import argparse
import csv
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.lgg import find
from medssl.assets import asset
from medssl.data.dataset import Case, load_cases
from medssl.data.manifest import COLUMNS
from medssl.data.prepare import prepare
from medssl.data.splits import assign
from medssl.data.store import Store, decode
from medssl.models.architecture import Architecture
from medssl.models.bundle import Bundle
from medssl.models.encoder import Encoder
from medssl.models.inference import with_context
from medssl.report.write import write_report
from medssl.scoring.finding import Finding
from medssl.scoring.folder import score_split
from medssl.scoring.predictor import Predictor
from medssl.training.finetuning.finetune import Labels
from medssl.training.launch import launch_finetune, launch_pretrain

ARMS: Mapping[str, str] = {"scratch": "", "scratch_one_rate": "", "MAE": "lgg_mae", "SimCLR": "lgg_simclr", "hybrid": "lgg_hybrid"}
OWN: Mapping[str, Sequence[str]] = {"scratch_one_rate": ("--training.encoder_rate", "1")}  # the encoder learns as fast as the decoder
SCRATCH = [arm for arm, recipe in ARMS.items() if not recipe]
OURS = "SimCLR"  # named beforehand: the arm of the first trials, which left the test patients out
FRACTIONS = {"train": 0.55, "val": 0.1, "test": 0.35}
DRAWS = 2000
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "lgg"
CROP = 112

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What one arm and draw reached on each test patient.

    Args:
        dice: Dice of each test patient.
        slices: Score of each slice of each test patient.
    """

    dice: Mapping[str, float]
    slices: Mapping[str, Float]


@dataclass(frozen=True)
class Draw:
    """A draw of labelled patients, and how long is learned from them.

    Args:
        patients: Labelled patients.
        steps: Steps of fine-tuning.
        seed: Draws the patients, the weights that are new, and the crops.
    """

    patients: int
    steps: int
    seed: int

    def options(self) -> list[str]:
        """As options of `medssl finetune`."""
        return ["--labels.patients", str(self.patients), "--training.steps", str(self.steps), "--seed", str(self.seed)]


def open_store(data: Path, work: Path) -> Store:
    """The store, with the patients split once and for all."""
    table = work / "lgg.csv"
    if not table.is_file():
        rows = [replace(row, scan_id=row.patient) for row in find(data)]
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: getattr(row, name) for name in COLUMNS} for row in assign(rows, fractions=FRACTIONS, seed=0))
    prepare(data, work / "store", labels=table)
    return Store(work / "store")


def pretrained(arm: str, work: Path) -> Path | None:
    """The encoder bundle of an arm; None from scratch."""
    out = work / f"pretrain_{arm}"
    if not ARMS[arm]:
        return None
    if not (out / "bundle").is_dir():
        resume = str((out / "config.yaml").is_file()).lower()
        config = str(asset(f"configs/pretrain/{ARMS[arm]}.yaml"))
        launch_pretrain(["--config", config, "--feed.store", str(work / "store"), "--out", str(out), "--resume", resume])
    return out / "bundle"


def finetuned(arm: str, bundle: Path | None, draw: Draw, work: Path) -> Outcome:
    """Fine-tune on a draw of patients and score the test patients."""
    out = work / f"finetune_{arm}_{draw.patients}_{draw.steps}_{draw.seed}"
    if not (out / "bundle").is_dir():
        resume = str((out / "config.yaml").is_file()).lower()
        start = [] if bundle is None else ["--bundle", str(bundle)]
        config = ["--config", str(asset("configs/finetune/lgg_segmenter.yaml")), *draw.options(), *OWN.get(arm, ()), *start]
        launch_finetune([*config, "--feed.store", str(work / "store"), "--out", str(out), "--resume", resume])
    test = out / "test"
    if not (test / "metrics.json").is_file():
        score_split(Predictor(out / "bundle"), Store(work / "store"), "test", test)
        write_report(test, test)
    scans = json.loads((test / "metrics.json").read_text(encoding="utf-8"))["segmentation"]["per_scan"]
    findings = [Finding.read(path) for path in sorted((test / "scans").glob("*.json"))]
    return Outcome(
        {scan["scan_id"]: scan["dice"] for scan in scans},
        {finding.scan_id: np.array(finding.slice_scores) for finding in findings},
    )


def probed(bundle: Path | None, draw: Draw, store: Store) -> Mapping[str, Float]:
    """Scores of test slices by a logistic regression on frozen features; its strength is chosen by folds of labelled patients."""
    encoder = fresh(draw.seed) if bundle is None else loaded(bundle)
    train = Labels(patients=draw.patients).drawn(load_cases(store, store.manifest.split("train")), seed=draw.seed)
    features = {case.row.scan_id: embedded(encoder, case) for case in train}
    x = np.concatenate(list(features.values()))
    y = np.concatenate([slice_labels(case) for case in train])
    groups = np.concatenate([[number] * case.shape[3] for number, case in enumerate(train)])
    folds = list(GroupKFold(len(train)).split(x, y, groups))
    model = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-5, 1, 7), cv=folds, scoring="neg_log_loss", solver="newton-cholesky")
    )
    model.fit(x, y)
    test = load_cases(store, store.manifest.split("test"))
    return {case.row.scan_id: model.predict_proba(embedded(encoder, case))[:, 1] for case in test}


def loaded(bundle: Path) -> Encoder:
    """The encoder of a bundle."""
    encoder = Bundle.read(bundle).load(bundle)
    assert isinstance(encoder, Encoder)
    return encoder


def fresh(seed: int) -> Encoder:
    """An encoder that has learned nothing."""
    torch.manual_seed(seed)
    sizes = {"patch": [16, 16], "in_channels": 3, "width": 192, "depth": 6, "heads": 6}
    encoder = Architecture("medssl.models.vit.ViT", sizes).build()
    assert isinstance(encoder, Encoder)
    return encoder.eval()


@torch.inference_mode()
def embedded(encoder: Encoder, case: Case) -> Float:
    """(K, D) features of the slices of a scan: the mean over the four corner windows of the size of the training crops."""
    slices = with_context(torch.from_numpy(decode(case.image)), 3)
    corners = [(i, j) for i in {0, slices.shape[2] - CROP} for j in {0, slices.shape[3] - CROP}]
    windows = [encoder.pooled(slices[:, :, i : i + CROP, j : j + CROP]) for i, j in corners]
    return torch.stack(windows).mean(dim=0).double().numpy()


def slice_labels(case: Case) -> NDArray[np.intp]:
    """(K,) 1 where a slice holds lesion."""
    labels = np.zeros(case.shape[3], np.intp)
    labels[case.lesion_slices] = 1
    return labels


def areas(draws: Sequence[Mapping[str, Float]], truth: Mapping[str, NDArray[np.intp]], patients: Sequence[str]) -> float:
    """Mean over draws of the slice AUROC of these patients (a patient may occur more than once)."""
    labels = np.concatenate([truth[patient] for patient in patients])
    return float(np.mean([roc_auc_score(labels, np.concatenate([scores[patient] for patient in patients])) for scores in draws]))


def interval(statistic: NDArray[np.float64]) -> str:
    """The middle 95 % of bootstrap values."""
    low, high = np.percentile(statistic, (2.5, 97.5))
    return f"{low:.3f} to {high:.3f}"


def better_scratch(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The arm without pretraining that came out better."""
    return max(SCRATCH, key=lambda arm: mean_dice(outcomes[arm]))


def mean_dice(found: Sequence[Outcome]) -> float:
    """Mean over draws and patients."""
    return float(np.mean([list(outcome.dice.values()) for outcome in found]))


def table(outcomes: Mapping[str, Sequence[Outcome]], probes: Mapping[str, Sequence[Mapping[str, Float]]], store: Store) -> list[str]:
    """Rows of a Markdown table; intervals resample patients, differences are paired by patient and draw."""
    base = better_scratch(outcomes)
    truth = {case.row.scan_id: slice_labels(case) for case in load_cases(store, store.manifest.split("test"))}
    patients = sorted(truth)
    samples = np.random.default_rng(0).integers(len(patients), size=(DRAWS, len(patients)))
    drawn = [[patients[index] for index in sample] for sample in samples]
    dice = {
        arm: np.array([np.mean([outcome.dice[patient] for outcome in found]) for patient in patients]) for arm, found in outcomes.items()
    }
    rows = [f"| arm | Dice | difference to {base} | slice AUROC, fine-tuned | slice AUROC, frozen probe | probe, difference to {base} |"]
    rows.append("|---|--:|--:|--:|--:|--:|")
    probe_draws = {arm: np.array([areas(found, truth, sample) for sample in drawn]) for arm, found in probes.items()}
    for arm, found in outcomes.items():
        tuned = [outcome.slices for outcome in found]
        tuned_draws = np.array([areas(tuned, truth, sample) for sample in drawn])
        gain, probe_gain = dice[arm] - dice[base], probe_draws[arm] - probe_draws[base]
        cells = [
            f"{dice[arm].mean():.3f} ({interval(dice[arm][samples].mean(axis=1))})",
            "" if arm == base else f"{gain.mean():+.3f} ({interval(gain[samples].mean(axis=1))})",
            f"{areas(tuned, truth, patients):.3f} ({interval(tuned_draws)})",
            f"{areas(probes[arm], truth, patients):.3f} ({interval(probe_draws[arm])})",
            "" if arm == base else f"{probe_gain.mean():+.3f} ({interval(probe_gain)})",
        ]
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run every arm and print the table, then the comparison of the best arm with scratch as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of TCGA-LGG as data_prep/lgg.py reads it")
    parser.add_argument("--work", type=Path, default=Path("runs") / "lgg_pretraining", help="where runs are kept")
    parser.add_argument("--patients", type=int, default=8, help="labelled patients of a draw")
    parser.add_argument("--seeds", type=int, default=3, help="draws of labelled patients")
    parser.add_argument("--steps", type=int, default=900, help="of each fine-tuning")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if not given.data.is_dir():
        print(f"no scans of TCGA-LGG at {given.data.name}; give their folder with --data")
        return
    given.work.mkdir(parents=True, exist_ok=True)
    store = open_store(given.data, given.work)
    draws = [Draw(given.patients, given.steps, seed) for seed in range(given.seeds)]
    bundles = {arm: pretrained(arm, given.work) for arm in ARMS}
    probes = {arm: [probed(bundle, draw, store) for draw in draws] for arm, bundle in bundles.items()}
    outcomes = {arm: [finetuned(arm, bundle, draw, given.work) for draw in draws] for arm, bundle in bundles.items()}
    print("\n".join(table(outcomes, probes, store)))
    means = {arm: mean_dice(found) for arm, found in outcomes.items()}
    peer = better_scratch(outcomes)
    record = {"benchmark": "lgg_pretraining", "medssl": means[OURS], "peer": means[peer], "peer_name": "the same net from scratch"}
    print(json.dumps({**record, "ratio": means[OURS] / means[peer], "unit": "Dice", "higher_is_better": True, "arms": means}))


if __name__ == "__main__":
    main()
