"""Whether pretraining goes well while it runs: spread, rank and use of the features of fixed crops, with an alarm for collapse.

Labels are read for crops of the validation split alone, to ask how well features tell lesions; no gradient comes from them, and training
neither sees nor stops by them.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.data.dataset import Case, CropDataset, Crops
from medssl.errors import CollapseError, ConfigError
from medssl.evaluation.representation import alignment, effective_rank, linear_probe, neighbours, spread, uniformity
from medssl.models.encoder import Encoder
from medssl.training.callbacks import Every
from medssl.training.curves import draw_curves
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.settings import Precision
from medssl.views.augment import Augment, augment
from medssl.views.streams import Streams

logger = logging.getLogger(__name__)

_AT_ONCE = 8  # crops through the encoder
_FLOOR_STD, _FLOOR_RANK = 1e-3, 1.0  # below them features are constant, whatever they were at the start
_VIEWS = Augment()


@dataclass(frozen=True)
class Watch:
    """How closely pretraining is watched, every `checkpoint_steps`.

    An encoder that learns spreads crops out more than the weights that it started from do. One that has collapsed maps them to a point
    (deviation near 0) or to a line (rank near 1): both are far below the start, whatever the method and the width, which is why the
    thresholds are shares of the start.

    Args:
        crops: Of the training split, without labels.
        labelled: Of the split with labels; 0 for no neighbours and no probe.
        split: Whose labels serve for neighbours and probe.
        least_std: Alarm below this share of the deviation at the start.
        least_rank: Alarm below this share of the effective rank at the start.
        on_collapse: `warn` logs it and goes on; `stop` ends the run without a bundle.

    Raises:
        ConfigError: A value out of range.
    """

    crops: int = 64
    labelled: int = 64
    split: str = "val"
    least_std: float = 0.1
    least_rank: float = 0.25
    on_collapse: Literal["warn", "stop"] = "warn"

    def __post_init__(self) -> None:
        if self.crops < 4 or self.labelled < 0 or not 0 <= self.least_std < 1 or not 0 <= self.least_rank < 1:
            raise ConfigError("crops must be >= 4, labelled >= 0, least_std and least_rank in [0, 1)")


@dataclass(frozen=True)
class Asked:
    """Labelled crops that stay the same.

    Args:
        images: (N, C, *S).
        labels: (N,) 1 with lesion, 0 without.
        patients: Of each crop.
    """

    images: Tensor
    labels: NDArray[np.intp]
    patients: tuple[str, ...]

    @classmethod
    def of(cls, cases: Sequence[Case], crops: Crops, *, count: int, seed: int) -> "Asked | None":
        """Crops whose answer is known, evenly over scans; None where they do not hold both answers of two patients or more."""
        images, labels, patients = [], [], []
        drawn = [cases[index] for index in np.random.default_rng(seed).permutation(len(cases))[:count]]  # tables are often sorted by class
        for number, case in enumerate(drawn):
            batch = CropDataset([case], crops, seed=seed + number).__getitems__(range(math.ceil(count / len(drawn))))
            answers = batch["lesion"].flatten(1).amax(dim=1).long() if case.known else batch["label"]
            for image, answer in zip(batch["image"], answers.tolist(), strict=True):
                if answer >= 0:
                    images.append(image)
                    labels.append(answer)
                    patients.append(case.row.patient)
        if len(set(labels)) < 2 or len(set(patients)) < 2:
            return None
        return cls(torch.stack(images), np.array(labels), tuple(patients))


class Health(L.Callback):
    """Measures features every so many steps into `health.jsonl`, `health.json` and `health.png`, and raises the alarm.

    Args:
        images: (N, C, *S) crops without labels.
        asked: Crops with labels, or None.
        folder: The run folder.
        every: Steps between two looks.
        crops_a_step: Over all devices.
        watch: Thresholds, and what an alarm does.
        seed: Of the two views that alignment compares.
    """

    def __init__(
        self, images: Tensor, asked: Asked | None, folder: Path, *, every: int, crops_a_step: int, watch: Watch, seed: int
    ) -> None:
        streams = Streams.of(seed, range(len(images)))
        self.images, self.asked, self.folder, self.watch = images, asked, folder, watch
        self.views = [augment(images, _VIEWS, streams=streams).images for _ in range(2)]
        self.every, self.crops_a_step = Every(every), crops_a_step
        self.rows: list[dict[str, float]] = []
        self.since = (0, 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The state at the start, which is what later states are compared with; a resumed run reads it back."""
        if not trainer.is_global_zero:
            return
        self.rows = [row for row in _rows_of(self.folder / "health.jsonl") if row["step"] <= trainer.global_step]
        if not self.rows:
            self.rows = [{"step": trainer.global_step, **self._look(pl_module)}]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        (self.folder / "health.jsonl").write_text(text, encoding="utf-8")
        self.since = trainer.global_step, time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int) -> None:
        """Look, note, and raise the alarm where it must be.

        Raises:
            CollapseError: The encoder has collapsed and the run is to stop then.
        """
        del outputs, batch
        if not trainer.is_global_zero or not self.every.due(trainer, batch_idx):
            return
        step, (before, start) = trainer.global_step, self.since
        rate = (step - before) * self.crops_a_step / (time.perf_counter() - start)
        terms = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        terms = {name: value for name, value in terms.items() if math.isfinite(value)}
        row = {"step": step, **terms, **self._look(pl_module), "crops_per_second": rate}
        self._note(row)
        for log in trainer.loggers:
            log.log_metrics({f"health/{name}": value for name, value in row.items() if name != "step" and name not in terms}, step)
        self._alarm(row)
        self.since = step, time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The picture of the whole run."""
        del pl_module
        if trainer.is_global_zero:
            draw_curves(self.rows, self.folder / "health.png")

    def watch_seconds(self, module: L.LightningModule, *, steps: int, done: int) -> float:
        """What all looks will take, from a few crops of one; there is one more at the start."""
        if not isinstance(module, Pretrainer):
            return 0.0
        few, times = self.images[:_AT_ONCE], []
        for _ in range(2):  # the first warms caches up
            start = time.perf_counter()
            embed(module.objective.encoder, few, precision=module.training_settings.resolved_precision)
            times.append(time.perf_counter() - start)
        crops = 3 * len(self.images) + (len(self.asked.images) if self.asked else 0)
        return (self.every.left(steps, done=done) + (done == 0)) * min(times) * crops / len(few)

    def _look(self, module: L.LightningModule) -> dict[str, float]:
        """What is known of the features; nothing where they are no numbers."""
        if not isinstance(module, Pretrainer):
            return {}
        embedded = partial(embed, module.objective.encoder, precision=module.training_settings.resolved_precision)
        features = embedded(self.images)
        if not np.isfinite(features).all():
            return {}
        deviations = spread(features)
        found = {
            "effective_rank": effective_rank(features),
            "std_min": float(deviations.min()),
            "std_mean": float(deviations.mean()),
            "alignment": alignment(*map(embedded, self.views)),
            "uniformity": uniformity(features),
        }
        if self.asked is not None:
            known = embedded(self.asked.images)
            for name, measure in (("knn", neighbours), ("probe", linear_probe)):
                told = measure(known, self.asked.labels, self.asked.patients)
                found |= {f"{name}_accuracy": told.accuracy, f"{name}_auroc": told.auroc}
        return found

    def _note(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        with (self.folder / "health.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _alarm(self, row: Mapping[str, float]) -> None:
        reason = collapsed(self.rows[0], row, self.watch)
        state = {"collapsed": reason is not None, "reason": reason, "start": self.rows[0], "now": dict(row)}
        (self.folder / "health.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        if reason is None:
            return
        advice = "lower the learning rate, or change the temperature, the batch or the views"
        if self.watch.on_collapse == "stop":
            raise CollapseError(f"the encoder has collapsed at step {row['step']}: {reason}; {advice}")
        logger.warning("collapse at step %d: %s; %s", row["step"], reason, advice)


def collapsed(start: Mapping[str, float], now: Mapping[str, float], watch: Watch) -> str | None:
    """Why features have collapsed since the start, or None where they have not; looks without measures are of features without values."""
    if "std_mean" not in now:
        return "features are not finite"
    for name, share, floor in (("std_mean", watch.least_std, _FLOOR_STD), ("effective_rank", watch.least_rank, _FLOOR_RANK)):
        least = max(share * start.get(name, 0.0), floor)
        if now[name] < least:
            return f"{name} {now[name]:.3g} is below {least:.3g} (it was {start.get(name, 0.0):.3g} at the start)"
    return None


@torch.no_grad()
def embed(encoder: Encoder, images: Tensor, *, precision: Precision = "32-true") -> NDArray[np.float64]:
    """(N, D) pooled features of images (N, C, *S), in eval mode; the encoder is left as it was."""
    device, training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        parts = [encoder.pooled(part.to(device)).float().cpu() for part in torch.split(images, _AT_ONCE)]
    encoder.train(training)
    return torch.cat(parts).double().numpy()


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """The looks of an interrupted run; a line that was cut off by a kill is not one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]
