"""Is training a lesion segmenter faster here than in the script that a user of MONAI would write, and as good?

Both train the same network (MONAI's residual U-Net, equal first weights) on the same prepared scans of a generated cohort, with crops of
the same size, half of them on lesions, the same kinds of augmentation, Dice + cross entropy and AdamW for the same number of steps.

- MONAI: CacheDataset, RandCropByPosNegLabeld (with the places of lesion found anew at each draw, or cached by FgBgToIndicesd), dictionary
  transforms, DataLoader, a plain loop
- medssl: `medssl.training.run.fit`, with its progress, logs and checkpoints

Parts of both runs take turns; the first steps of each part are discarded. Then both networks segment scans that neither has seen.

    python -m benchmarks.finetune [--rounds 5] [--steps 20] [--dice-steps 200]
"""

import argparse
import copy
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    FgBgToIndicesd,
    LoadImaged,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SpatialPadd,
)
from numpy.typing import NDArray

from medssl.data.dataset import Case, Crops, load_cases
from medssl.data.feed import Feed
from medssl.data.prepare import prepare
from medssl.data.store import Store, decode
from medssl.evaluation.segmentation import dice
from medssl.models.inference import Window, probabilities
from medssl.models.residual_unet import ResidualUNet
from medssl.phantom import make_cohort
from medssl.training.finetuning.segmenter import Segmenter
from medssl.training.run import Run, fit
from medssl.training.settings import Training
from medssl.views.augment import Augment

GOAL = 1.3
SIDE, BATCH, RATE, WARM = 64, 4, 2e-3, 3
CROP = (SIDE, SIDE, 32)
PATIENTS, SHAPE = 32, (192, 192, 96)  # scans of a usual size: what a loader does with a whole one counts
ROTATION = 15.0
VIEWS = Augment(flip=0.5, rotate_degrees=ROTATION, scale=0.15, shift=0.0, gain=0.2, offset=0.2, noise=0.1, blur=0.0)
PEER = "script with MONAI CacheDataset, DataLoader and loop"

Times = list[float]
Trained = tuple[ResidualUNet, Times]


class Stopwatch(L.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: Times = []

    def on_train_batch_end(self, *_: object) -> None:
        """Another one."""
        self.ends.append(time.perf_counter())


def fresh() -> ResidualUNet:
    """The network, with the same weights each time."""
    torch.manual_seed(0)
    return ResidualUNet(spatial_dims=3)


def make_data(scratch: Path) -> tuple[list[Case], list[Case], list[dict[str, str]]]:
    """Training and test cases with lesions of a prepared cohort, and the same training scans as files for the peer."""
    make_cohort(scratch / "cohort", patients=PATIENTS, shape=SHAPE, seed=3)
    prepare(scratch / "cohort", scratch / "store", seed=3)
    store = Store(scratch / "store")
    train, test = (
        [case for case in load_cases(store, store.manifest.split(split)) if len(case.lesion_slices)] for split in ("train", "test")
    )
    files = []
    for case in train:
        paths = {name: str(scratch / f"{case.row.scan_id}_{name}.nii.gz") for name in ("image", "lesion")}
        nib.save(nib.Nifti1Image(decode(case.image)[0].astype(np.float32), np.eye(4)), paths["image"])
        nib.save(nib.Nifti1Image(masked(case).astype(np.uint8), np.eye(4)), paths["lesion"])
        files.append(paths)
    return train, test, files


def masked(case: Case) -> NDArray[np.uint8]:
    """The lesion (I, J, K)."""
    assert case.lesion is not None
    mask: NDArray[np.uint8] = case.lesion[0]
    return mask


def cached(files: Sequence[dict[str, str]], *, places: bool) -> CacheDataset:
    """The scans in memory, also the places of their lesions if asked, with the random transforms of a training script."""
    keys, angle = ["image", "lesion"], np.deg2rad(ROTATION)
    known: dict[str, Any] = {"fg_indices_key": "lesion_fg_indices", "bg_indices_key": "lesion_bg_indices"} if places else {}
    steps = [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        SpatialPadd(keys, CROP),
        *([FgBgToIndicesd("lesion")] if places else []),
        RandCropByPosNegLabeld(keys, "lesion", CROP, pos=1, neg=1, num_samples=2, **known),
        *[RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)],
        RandAffined(
            keys, prob=1.0, rotate_range=(0, 0, angle), scale_range=(0.15,) * 3, mode=("bilinear", "nearest"), padding_mode="border"
        ),
        RandScaleIntensityd("image", factors=0.2, prob=1.0),
        RandShiftIntensityd("image", offsets=0.2, prob=1.0),
        RandGaussianNoised("image", prob=1.0, std=0.1),
    ]
    return CacheDataset(files, Compose(steps), progress=False)


def train_peer(data: CacheDataset, steps: int, workers: int) -> Trained:
    """The loop of a script: two scans and two crops of each a step."""
    network, loss_of = fresh(), DiceCELoss(sigmoid=True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=round(0.1 * steps), t_total=steps)
    loader = DataLoader(data, batch_size=BATCH // 2, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)
    ends: Times = []
    while len(ends) < steps:
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch["image"].as_tensor()), batch["lesion"].as_tensor())
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == steps:
                break
    return network, ends


def train_ours(train: Sequence[Case], scratch: Path, steps: int, workers: int) -> Trained:
    """A run of medssl."""
    training = Training(steps=steps, learning_rate=RATE, weight_decay=0.01, betas=(0.9, 0.999), clip=1e9, precision="32-true")
    feed = Feed(scratch / "store", Crops(CROP, lesion_fraction=0.5), BATCH, workers)
    module, watch = Segmenter(fresh(), training, views=VIEWS, seed=0), Stopwatch()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        run = Run(Path(folder) / "run", "feed: {store: none}\n")
        fit(module, training, run=run, loader=feed.labelled(train, steps=steps, seed=0), scans=len(train), callbacks=[watch])
    assert isinstance(module.network, ResidualUNet)
    return module.network, watch.ends


def step_seconds(ends: Times) -> float:
    """Mean seconds of a step, without the first ones."""
    return (ends[-1] - ends[WARM]) / (len(ends) - 1 - WARM)


def mean_dice(network: ResidualUNet, test: Sequence[Case]) -> float:
    """Dice at 0.5, mean over scans with lesion."""
    window = Window(CROP, batch=4)
    network.eval()
    found = [dice(probabilities(network, torch.from_numpy(decode(case.image)), window) >= 0.5, masked(case)) for case in test]
    return statistics.mean(value for value in found if value is not None)


def main(argv: Sequence[str] | None = None) -> None:
    """Print steps/s and Dice of both, then all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of each arm in each round")
    parser.add_argument("--dice-steps", type=int, default=200, help="of the runs whose Dice is compared; 0 compares speed alone")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        train, test, files = make_data(scratch)
        data, placed = cached(files, places=False), cached(files, places=True)
        arms: dict[str, Callable[[int], Trained]] = {
            "MONAI": lambda steps: train_peer(data, steps, 0),
            "MONAI, places cached": lambda steps: train_peer(placed, steps, 0),
            "MONAI, cached, 2 workers": lambda steps: train_peer(placed, steps, 2),
            "medssl": lambda steps: train_ours(train, scratch, steps, 0),
        }
        print(f"{len(train)} training and {len(test)} test scans with lesions, shape {list(train[0].shape)}")
        report(arms, test, given.rounds, given.steps, given.dice_steps)


def report(arms: Mapping[str, Callable[[int], Trained]], test: Sequence[Case], rounds: int, steps: int, dice_steps: int) -> None:
    """Interleave the arms, then train the two that count to their Dice."""
    seconds = [{name: step_seconds(arm(steps)[1]) for name, arm in arms.items()} for _ in range(rounds + 1)][1:]
    medians = {name: statistics.median(one[name] for one in seconds) for name in arms}
    ratios = {name: statistics.median(one[name] / one["medssl"] for one in seconds) for name in arms}
    for name, value in medians.items():
        print(f"{name:26}{1e3 * value:7.0f} ms a step, medssl {ratios[name]:.2f} times as fast")
    best = min((name for name in arms if name != "medssl"), key=medians.__getitem__)
    found = {name: mean_dice(copy.deepcopy(arms[name](dice_steps)[0]), test) for name in (best, "medssl")} if dice_steps else {}
    if found and max(found.values()) == 0:
        print("neither network finds anything yet: their Dice says nothing; give more --dice-steps")
    print(f"Dice of unseen scans after {dice_steps} steps: {found}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    record = {"benchmark": "finetune", "medssl": 1 / medians["medssl"], "peer": 1 / medians[best], "peer_name": f"{PEER} ({best})"}
    record |= {"ratio": ratios[best], "unit": "steps/s", "higher_is_better": True, "goal": GOAL, "dice": found}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
