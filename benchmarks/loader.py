"""Does the input pipeline alone deliver several times the crops that pretraining uses?

For configs/pretrain/mae_3d.yaml and mae_2d.yaml, on the store of `benchmarks.crops`, in one process with two threads:

- input: batches of the run, cut from the store, and the views of the objective
- step: forward (views included), backward and optimiser of the configured method, on a batch that is there already

Both are interleaved; the first round is discarded, ratios are medians of the rounds. The files are in the page cache.

    python -m benchmarks.loader [--rounds 5] [--seconds 2]
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.crops import make_store
from medssl.assets import asset
from medssl.data.dataset import load_cases
from medssl.data.feed import Feed
from medssl.data.store import Store
from medssl.objectives.mae import MAE
from medssl.training.launch import parser_of
from medssl.training.pretraining.pretrain import pretrain
from medssl.training.pretraining.pretrainer import Pretrainer, batch_of
from medssl.training.settings import Training
from medssl.views.augment import augment

GOAL = 3.0
THREADS = 2


def configured(name: str, store: Store) -> tuple[MAE, Feed, Training]:
    """The method, the feed and the settings of a recipe, on this store."""
    parser = parser_of(pretrain, "pretrain")
    arguments = ["--config", str(asset(f"configs/pretrain/{name}.yaml")), "--feed.store", str(store.folder), "--out", "none"]
    built = parser.instantiate(parser.parse_args(arguments))
    return cast(MAE, built.objective), built.feed, built.training


def input_arm(objective: MAE, feed: Feed, store: Store) -> Callable[[], int]:
    """One batch, cut and varied; returns its crops."""
    cases = load_cases(store, store.manifest.rows, masks=False)
    batches: Iterator[Any] = iter(feed.unlabelled(cases, positives=objective.positives, steps=1_000_000, seed=1))

    def once() -> int:
        batch = batch_of(next(batches), 1)
        augment(batch.crop(0), objective.views, streams=batch.streams, masks=batch.inside(0).float())
        return len(batch)

    return once


def step_arm(objective: MAE, feed: Feed, training: Training, store: Store) -> Callable[[], int]:
    """One step on crops that are there already; returns its crops."""
    cases = load_cases(store, store.manifest.rows, masks=False)
    crops = next(iter(feed.unlabelled(cases, positives=objective.positives, steps=1, seed=1)))
    optimizer = cast(dict[str, Any], Pretrainer(objective, training, seed=1).configure_optimizers())["optimizer"]

    def once() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=training.resolved_precision == "bf16-mixed"):
            loss: Tensor = objective(batch_of(crops, 1)).total
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return len(crops["image"])

    return once


def rate(arm: Callable[[], int], seconds: float) -> float:
    """Crops a second, over so many seconds."""
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        count += arm()
        passed = time.perf_counter() - start
    return count / passed


def compare(name: str, store: Store, *, rounds: int, seconds: float) -> dict[str, float]:
    """Medians of both rates and of their ratio."""
    objective, feed, training = configured(name, store)
    feeding, stepping = input_arm(objective, feed, store), step_arm(objective, feed, training, store)
    pairs = [(rate(feeding, seconds), rate(stepping, seconds)) for _ in range(rounds + 1)][1:]
    delivered, used = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{name}: input {delivered:.1f} crops/s, step {used:.1f} crops/s, ratio {ratio:.2f} (goal {GOAL})")
    return {"input": delivered, "step": used, "ratio": ratio}


def main(argv: Sequence[str] | None = None) -> None:
    """Print both recipes, then all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each arm in each round")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        store, origin = make_store(Path(scratch))
        found = {name: compare(name, store, rounds=given.rounds, seconds=given.seconds) for name in ("mae_3d", "mae_2d")}
    least = min(found.values(), key=lambda values: values["ratio"])
    print(f"{origin}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    record = {"benchmark": "loader", "medssl": least["input"], "peer": least["step"], "peer_name": "what a training step consumes"}
    record |= {"ratio": least["ratio"], "unit": "crops/s", "higher_is_better": True, "goal": GOAL, "recipes": found}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
