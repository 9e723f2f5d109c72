"""The logs of a run: `logs/metrics.csv` and the event files of TensorBoard."""

import csv
from pathlib import Path
from typing import cast

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from medssl.training.ranks import leads

_NAME = "logs"


def logs_of(folder: Path, *, every: int, done: int) -> list[Logger]:
    """The loggers of a run.

    Args:
        folder: The run folder.
        every: Steps between two rows, each of which is on the disk at once.
        done: Steps behind the checkpoint to go on from; rows of later steps are forgotten, as they come again.
    """
    before = _rows(folder / _NAME / "metrics.csv", done) if leads() else []
    table = CSVLogger(folder, name=_NAME, version="", flush_logs_every_n_steps=every)
    for row in before:  # Lightning's logger begins with an empty file
        table.experiment.log_metrics(cast(dict[str, float], row), step=int(row["step"]))
    if before:
        table.save()
    return [table, TensorBoardLogger(folder, name=_NAME, version="")]


def _rows(path: Path, done: int) -> list[dict[str, str]]:
    """The rows of the steps that are behind: Lightning counts the steps of training from 0, looks are noted by the steps behind them."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        found = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in found if int(row["step"]) < done + (not any(name.startswith("train/") for name in row))]
