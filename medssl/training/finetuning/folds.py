"""Cross-validation: a run a fold, and one bundle of all of them whose thresholds come from patients that each member had not seen."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medssl.data.dataset import Case
from medssl.data.folds import fold_numbers, nearly_equal
from medssl.data.held_out import FOLDER
from medssl.data.splits import assign, check_seed
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.training.planning.cost import Plan
from medssl.training.ranks import leads, started_elsewhere
from medssl.training.run import Run
from medssl.training.settings import Training

OUT_OF_FOLD = "out-of-fold scores"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folds:
    """A cross-validation in place of the splits of the store.

    Args:
        count: Folds of patients; by site there is one for each site.
        by: What is held out together: `patient`, balanced over classes, lesions and sites, or `site`.
        run: Numbers of the folds to run now; null for all. The bundle of all folds is made once the last one is done.
        splits: Parts of the store that are cut into folds; the others are not touched. With all of them no test split is left.
        seed: Of the draw; the folds stay the same whatever the seed of the run is.

    Raises:
        ConfigError: A value out of range.
    """

    count: int = 5
    by: Literal["patient", "site"] = "patient"
    run: tuple[int, ...] | None = None
    splits: tuple[str, ...] = ("train", "val")
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.count < 2 or not self.splits:
            raise ConfigError(f"folds: count must be >= 2 and splits not empty, got {self.count} and {list(self.splits)}")
        if self.run is not None and (not self.run or min(self.run) < 0):
            raise ConfigError(f"folds.run must be numbers from 0 on, or null for all folds, got {list(self.run)}")

    def open(self, run: Run) -> None:
        """Make the folder of the run of all folds; folds that are asked for one by one go on with the same folder."""
        again = self.run is not None and (run.folder / "config.yaml").is_file()
        replace(run, resume=run.resume or again).open()


@dataclass(frozen=True, eq=False)
class Part:
    """Which scans a network is made from.

    Args:
        train: It learns from.
        selecting: Its weights are selected on.
        held: Its thresholds are chosen on.
        outputs: Where what it says of the held ones is kept; None keeps nothing.
    """

    train: list[Case]
    selecting: list[Case]
    held: list[Case]
    outputs: Path | None = None


Learn = Callable[[Network, Run, Part], Bundle | Plan | None]
"""Trains a network on a part and writes its bundle."""


@dataclass(frozen=True, eq=False)
class Parts:
    """All folds of a run.

    Args:
        folds: What was asked for.
        held: Scans held out by each fold.
        share: Of the patients left to learn from, those that weights are selected on; 0 where the last weights are kept.
        together: Pairs of scans, nearly equal, whose patients are not torn apart.
    """

    folds: Folds
    held: tuple[list[Case], ...]
    share: float
    together: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, folds: Folds, cases: Sequence[Case], store: Store, *, share: float) -> "Parts":
        """The folds of scans.

        Raises:
            ConfigError: Too few patients or sites, or a fold to run that there is not.
        """
        rows = [case.row for case in cases]
        together = nearly_equal(store, rows)
        numbers = fold_numbers(rows, together=together, count=folds.count, by=folds.by, seed=folds.seed)
        held: tuple[list[Case], ...] = tuple([] for _ in range(max(numbers) + 1))
        for case, number in zip(cases, numbers, strict=True):
            held[number].append(case)
        if max(folds.run or (0,)) >= len(held):
            raise ConfigError(f"folds.run asks for fold {max(folds.run or ())}, there are 0 to {len(held) - 1}")
        return cls(folds, held, share, together)

    def __len__(self) -> int:
        return len(self.held)

    def part(self, number: int, folder: Path) -> Part:
        """What fold `number` learns from, is selected on and is held out from."""
        others = [case for other, cases in enumerate(self.held) if other != number for case in cases]
        outputs = folder / FOLDER
        if not self.share:
            return Part(others, [], self.held[number], outputs)
        shares = {"train": 1 - self.share, "val": self.share}
        ids = {case.row.scan_id for case in others}
        together = [pair for pair in self.together if ids.issuperset(pair)]
        drawn = assign([replace(case.row, split="") for case in others], fractions=shares, seed=self.folds.seed, together=together)
        of = {name: [case for case, row in zip(others, drawn, strict=True) if row.split == name] for name in shares}
        return Part(of["train"], of["val"], self.held[number], outputs)

    def learned(self, run: Run, drawn: Callable[[list[Case]], list[Case]]) -> list[Case]:
        """The scans that any fold learns from; `drawn` takes those with labels that count from the ones that it could learn from."""
        parts = (self.part(number, fold_folder(run.folder, number)) for number in range(len(self)))
        return list({case.row.scan_id: case for part in parts for case in drawn(part.train)}.values())

    def outputs(self, run: Run) -> list[tuple[Case, Path]]:
        """Every scan, and the folder that keeps what the fold that it was held out from says of it."""
        return [(case, fold_folder(run.folder, number) / FOLDER) for number, cases in enumerate(self.held) for case in cases]

    def facts(self) -> dict[str, object]:
        """What the bundle records."""
        patients = [len({case.row.patient for case in cases}) for cases in self.held]
        sites = [sorted({case.row.site for case in cases} - {""}) for cases in self.held]
        names = {"sites": sites} if self.folds.by == "site" else {}
        return {"count": len(self), "by": self.folds.by, "splits": list(self.folds.splits), "patients": patients, **names}


def fold_folder(run: Path, number: int) -> Path:
    """Where the run of a fold lies."""
    return run / "folds" / str(number)


def cross_validate(
    parts: Parts, network: Network, run: Run, training: Training, learn: Learn, together: Callable[[Parts, Run], Bundle]
) -> Bundle | Plan | None:
    """Run the folds that are asked for and not done yet, and make one bundle of all once none is missing.

    Each fold starts with a copy of the same first weights, in a run folder of its own.

    Args:
        parts: The folds.
        network: The first weights.
        run: The run of all folds.
        training: Its devices.
        learn: Trains one fold.
        together: Makes one bundle of all.

    Returns:
        The bundle of all folds, or of the last one that was run while some are missing; the plan of one fold where that is all;
        None on processes that help.

    Raises:
        ConfigError: Several folds at once where processes are started from outside, or a strategy that this machine cannot run.
    """
    if leads() and not run.plan_only:
        training.check_machine()
        parts.folds.open(run)
    outcome = _each(parts, network, run, training, learn)
    if run.plan_only or not leads() or _missing(parts, run):
        return outcome
    if run.resume and is_done(run.folder):
        return Bundle.read(run.folder / "bundle")
    return together(parts, run)


def _each(parts: Parts, network: Network, run: Run, training: Training, learn: Learn) -> Bundle | Plan | None:
    """Run folds; ends with the first that gives no bundle."""
    wanted = parts.folds.run or tuple(range(len(parts)))
    if len(wanted) > 1 and training.devices * training.num_nodes > 1 and started_elsewhere():
        raise ConfigError("folds over processes that something else starts run one at a time; give --folds.run [0], then [1], ...")
    outcome: Bundle | Plan | None = None
    for number in wanted:
        inner = _inner(run, number)
        if run.resume and is_done(inner.folder):
            continue
        logger.info("fold %d of %d", number, len(parts))
        outcome = learn(copy.deepcopy(network), inner, parts.part(number, inner.folder))
        if not isinstance(outcome, Bundle):
            return outcome
    return outcome


def _inner(run: Run, number: int) -> Run:
    """The run of one fold; processes that help it are started for this fold alone."""
    folder = fold_folder(run.folder, number)
    command = (*run.command, "--folds.run", f"[{number}]") if run.command else ()
    return replace(run, folder=folder, command=command, resume=run.resume and (folder / "config.yaml").is_file())


def is_done(folder: Path) -> bool:
    """Whether the run of a fold has ended with a bundle."""
    return (folder / "bundle" / "bundle.json").is_file()


def _missing(parts: Parts, run: Run) -> list[int]:
    """Numbers of the folds that are still to run."""
    return [number for number in range(len(parts)) if not is_done(fold_folder(run.folder, number))]


def members(parts: Parts, run: Run) -> Iterator[tuple[Bundle, Network]]:
    """The bundle and the network of each fold."""
    for number in range(len(parts)):
        folder = fold_folder(run.folder, number) / "bundle"
        bundle = Bundle.read(folder)
        network = bundle.load(folder)
        if not isinstance(network, Network):
            raise ConfigError(f"fold {number} holds no lesion network; run it again in another folder")
        yield bundle, network


_OF_MEMBERS = ("scans", "patients", "steps", "protocol", "advice")


def member_facts(bundles: Sequence[Bundle]) -> dict[str, object]:
    """What the bundle of all folds records of each: what it learned from and how, and what is true of all of them."""
    records = [bundle.training for bundle in bundles]
    found = [{name: one[name] for name in _OF_MEMBERS if name in one} for one in records]
    first: dict[str, object] = {name: records[0][name] for name in ("steps", "protocol", "adapted") if name in records[0]}
    alike = {name: value for name, value in first.items() if all(one.get(name) == value for one in records)}
    return {**alike, "members": found, "selection": [one["selection"] for one in records]}
