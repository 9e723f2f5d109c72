"""Fine-tuning: a lesion network from a pretrained encoder or from scratch, and its operating points."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.classes import Classes, check_known, check_positive
from medssl.data.dataset import Case, load_cases
from medssl.data.feed import Feed
from medssl.data.held_out import read_output
from medssl.data.seen import Seen, merged, merged_all, record
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.evaluation.lesion_point import check_rule
from medssl.evaluation.operating_point import parse_rule
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.crop_check import check_crop
from medssl.models.ensemble import Ensemble
from medssl.models.inference import Window, fit_of
from medssl.training.finetuning.begin import Beginning, begin, check_detector
from medssl.training.finetuning.card import card, data_facts
from medssl.training.finetuning.classifier import Classifier
from medssl.training.finetuning.detector import Detector
from medssl.training.finetuning.folds import OUT_OF_FOLD, Folds, Part, Parts, cross_validate, member_facts, members
from medssl.training.finetuning.labelled import channel_weights, check_cases, is_usable, tell_apart
from medssl.training.finetuning.lesions import LesionModule
from medssl.training.finetuning.segmenter import Segmenter
from medssl.training.losses import Loss
from medssl.training.planning.cost import Plan
from medssl.training.protocols.tuning import Name, Tuning
from medssl.training.ranks import own_device
from medssl.training.run import Ended, Run, facts, fit, untrained, versions, with_weights
from medssl.training.settings import Training
from medssl.training.validation.lesion_point import lesion_point
from medssl.training.validation.points import Scored, calibration, operating_points, score_cases
from medssl.training.validation.selection import Keeper, Selection
from medssl.views.augment import Augment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Which labels are used, and how.

    Args:
        positive: Class names that count as positive; empty for every class but the usual names of "nothing there".
        rule: Rule of the operating point on validation scans, see `medssl.evaluation.operating_point.choose`.
        lesion_rule: Rule of the score from which a detector's mark is a lesion: `f1`, or `fp <= 1` for so many false positives a scan.
        calibrate: Fit a temperature of the scores of slices and scans on validation scans, before thresholds are chosen.
        train_split: Part of the store to learn from.
        validation_split: Part of the store that thresholds are chosen on.
        patients: Labelled patients to learn from, drawn with the seed of the run; None for all. Selection, calibration and thresholds use
            every label of validation all the same.
        classes: Class names in the order of the network's channels, behind the background of a segmenter; empty for lesion against none.
        multi_label: A scan may have several classes at once, with `;` between them in the table.
        mask_values: What masks hold where each class is; empty for 1, 2, 3, ...

    Raises:
        ConfigError: Fewer than one patient, an unknown rule, or classes that contradict themselves.
    """

    positive: tuple[str, ...] = ()
    rule: str = "youden midway"
    lesion_rule: str = "f1"
    train_split: str = "train"
    validation_split: str = "val"
    patients: int | None = None
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    mask_values: tuple[int, ...] = ()
    calibrate: bool = True

    @cached_property
    def named(self) -> Classes:
        """The classes, and which of them are positive."""
        return Classes(self.classes, self.positive, self.multi_label, self.mask_values)

    def __post_init__(self) -> None:
        check_rule(self.lesion_rule)
        _ = self.named
        parse_rule(self.rule)
        if self.patients is not None and self.patients < 1:
            raise ConfigError(f"labels.patients must be >= 1, or null for all, got {self.patients}")

    def drawn(self, cases: list[Case], *, seed: int) -> list[Case]:
        """The scans of as many patients as asked for; another number adds to the same ones.

        Raises:
            ManifestError: There are fewer patients.
        """
        if self.patients is None:
            return cases
        patients = sorted({case.row.patient for case in cases})
        if len(patients) < self.patients:
            raise ManifestError("no_rows", f"labels.patients asks for {self.patients}, the split has {len(patients)} with usable labels")
        chosen = set(np.random.default_rng(seed).permutation(patients)[: self.patients])
        return [case for case in cases if case.row.patient in chosen]


_LABELS = Labels()
MODULES: dict[str, type[LesionModule]] = {"segmentation": Segmenter, "classification": Classifier, "detection": Detector}
_VIEWS = Augment()
_SELECTION = Selection()
_TUNING = Tuning()


@dataclass(frozen=True)
class _Recipe:
    """What all folds of a run share, see `finetune`."""

    feed: Feed
    training: Training
    seed: int
    origin: Path | None
    labels: Labels
    views: Augment
    loss: Loss | None
    selection: Selection
    protocol: Name
    tuning: Tuning

    def __post_init__(self) -> None:
        self.training.check_batch(self.feed.batch_size)

    @property
    def window(self) -> Window:
        """How the network looks at whole scans."""
        return Window(self.feed.crops.size, self.feed.crops.context, flips=self.selection.flips)


def finetune(
    network: Network,
    feed: Feed,
    training: Training,
    *,
    run: Run,
    seed: int = 0,
    bundle: Path | None = None,
    labels: Labels = _LABELS,
    views: Augment = _VIEWS,
    loss: Loss | None = None,
    selection: Selection = _SELECTION,
    folds: Folds | None = None,
    protocol: Name = "full",
    tuning: Tuning = _TUNING,
) -> Bundle | Plan | None:
    """Train a lesion network on labelled scans and lock its thresholds on validation scans.

    Args:
        network: Segmenter, classifier or detector.
        feed: Crops and batches.
        training: Steps and optimiser.
        run: Where the run is kept.
        seed: Of crops and views.
        bundle: A pretrained encoder, or a lesion network on one, or None to start from scratch.
        labels: Which labels are used.
        views: Augmentation.
        loss: What is minimised; None for Dice and cross entropy of a segmenter, cross entropy of a classifier.
        selection: Which weights are kept, and how they look at scans.
        folds: A cross-validation whose members make one bundle; null takes the splits of the store.
        protocol: Which weights learn; `auto` asks the advisor.
        tuning: Numbers of the protocols.

    Returns:
        The bundle; None on processes that help; the plan where the run is for that alone. With folds see `cross_validate`.

    Raises:
        ConfigError: A network that does not fit the crops or the bundle.
        ManifestError: No usable label, or a positive class that no label names.
    """
    store = Store(feed.store)
    tell_apart(network, labels.named, loss, feed.crops)
    check_detector(network, folds, protocol)
    recipe = _Recipe(feed, training, seed, bundle, labels, views, loss, selection, protocol, tuning)
    if folds is None:
        train, held = (_labelled(network, store, labels, split) for split in (labels.train_split, labels.validation_split))
        return _learn(recipe, network, run, Part(train, held, held))
    cases = [case for split in folds.splits for case in _labelled(network, store, labels, split)]
    parts = _checked(Parts.of(folds, cases, store, share=selection.share if selection.metric else 0.0), network, recipe, run)
    return cross_validate(parts, network, run, training, partial(_learn, recipe), partial(_together, recipe))


def _checked(parts: Parts, network: Network, recipe: _Recipe, run: Run) -> Parts:
    """The folds, of which each has what it needs to learn; known before the first one trains for hours."""
    for number in range(len(parts)):
        part = parts.part(number, run.folder)
        train = recipe.labels.drawn(part.train, seed=recipe.seed)
        check_cases(network, train, split=f"fold {number}", held=[*part.held, *part.selecting])
    return parts


def _learn(recipe: _Recipe, network: Network, run: Run, part: Part) -> Bundle | Plan | None:
    """Train on one part of the scans, lock the thresholds on another, write the bundle."""
    feed, labels, seed = recipe.feed, recipe.labels, recipe.seed
    store, train = Store(feed.store), labels.drawn(part.train, seed=seed)
    _check_shape(network, train[0], feed)
    check_cases(network, train, split=labels.train_split, held=[*part.held, *part.selecting])
    begun = begin(
        network, train, feed.crops, store, bundle=recipe.origin, protocol=recipe.protocol, tuning=recipe.tuning, run=run, seed=seed
    )
    keeper = Keeper(recipe.selection, network, part.selecting, recipe.window, recipe.training, seed=seed, plain=begun.protocol.plain)
    weights = _fit(recipe, begun, train, run, keeper)
    if not isinstance(weights, dict):
        return weights
    network = with_weights(begun.network, begun.protocol.plain(weights), "network").to(own_device())
    scored = score_cases(network, part.held, recipe.window, "points", outputs=part.outputs)
    found = facts(run, recipe.training, seed=seed, manifest=store.manifest.digest(), patients=_patients(train), scans=len(train))
    found |= {**begun.facts, "selection": keeper.facts(), "data": data_facts(training=train, validation=part.held)}
    seen = _seen(store, train, [*part.held, *_others(part.selecting, part.held)], begun.start.seen)
    trained = replace(_locked(recipe, network, scored, store), training=found, lineage=begun.start.lineage, seen=seen)
    return trained.write(run.folder / "bundle", network, card(trained))


def _together(recipe: _Recipe, parts: Parts, run: Run) -> Bundle:
    """One bundle of all folds, with its thresholds locked on what each fold said of the scans held out from it."""
    store, (bundles, networks) = Store(recipe.feed.store), zip(*members(parts, run), strict=True)
    ensemble = Ensemble(**{f"fold_{number}": network for number, network in enumerate(networks)})
    scored = [Scored.of(ensemble, case, read_output(kept, case.row.scan_id), "points") for case, kept in parts.outputs(run)]
    learned = parts.learned(run, partial(recipe.labels.drawn, seed=recipe.seed))
    digest = store.manifest.digest()
    found = facts(run, recipe.training, seed=recipe.seed, manifest=digest, patients=_patients(learned), scans=len(learned))
    found |= {
        **member_facts(bundles),
        "folds": parts.facts(),
        "data": data_facts(cross_validation=[one.case for one in scored]),
    }
    trained = replace(
        _locked(recipe, ensemble, scored, store, chosen_on=OUT_OF_FOLD),
        training=found,
        lineage=bundles[0].lineage,
        seen=merged_all(bundle.seen for bundle in bundles),
    )
    return trained.write(run.folder / "bundle", ensemble, card(trained))


def _others(cases: list[Case], than: list[Case]) -> list[Case]:
    known = {case.row.scan_id for case in than}
    return [case for case in cases if case.row.scan_id not in known]


def _fit(recipe: _Recipe, begun: Beginning, train: list[Case], run: Run, keeper: Keeper) -> Ended:
    """Train on labelled crops, and the weights that are kept; those of the start where the protocol trains nothing."""
    network, protocol, training = begun.network, begun.protocol, recipe.training
    if not protocol.learns:
        keeper.refuse_idle()
        return untrained(network, run)
    balance = channel_weights(recipe.loss, network, train)
    module = MODULES[network.task](
        network, training, views=recipe.views, seed=recipe.seed, loss=recipe.loss, weights=balance, protocol=protocol
    )
    loader = recipe.feed.labelled(
        train, steps=training.steps, seed=recipe.seed, done=run.done, parts=training.accumulate, fit=fit_of(network.task)
    )
    return keeper.kept(fit(module, training, run=run, loader=loader, scans=len(train), callbacks=keeper.callbacks))


def _locked(recipe: _Recipe, network: Network, scored: list[Scored], store: Store, *, chosen_on: str = "validation") -> Bundle:
    """The trained network described, with its calibration and its thresholds locked on scans that it did not learn from."""
    labels = recipe.labels
    bundle = Bundle(
        kind=network.task,
        architecture=network.architecture(),
        preprocess=store.preprocess,
        window=recipe.window,
        class_names=network.outputs.positive or labels.positive,
        outputs=network.outputs,
        calibration=calibration(scored) if labels.calibrate else {},
        versions=versions(),
    )
    temperatures = {unit: bundle.temperature(unit) for unit in bundle.calibration}
    points = operating_points(scored, rule=labels.rule, temperatures=temperatures, chosen_on=chosen_on)
    return replace(bundle, operating_points=points | lesion_point(scored, rule=labels.lesion_rule, chosen_on=chosen_on))


def _seen(store: Store, train: list[Case], validation: list[Case], before: Seen) -> dict[str, Any]:
    """Digests of the scans of this run and of the run that it started from."""
    learned, chosen = ([case.row for case in cases] for cases in (train, validation))
    scans = [*record("training", learned, store.signs(learned)), *record("validation", chosen, store.signs(chosen))]
    return merged(before, scans, reason=store.leakage.reason)


def _labelled(network: Network, store: Store, labels: Labels, split: str) -> list[Case]:
    """Scans of a split whose answer is known in the way that the network needs."""
    check_positive(labels.named, store.manifest.rows)
    check_known(labels.named, store.manifest.split(split), needed=network.task == "classification")
    cases = load_cases(store, store.manifest.split(split), classes=labels.named)
    usable = [case for case in cases if is_usable(network, case)]
    if not usable:
        wanted = "labels or lesion masks" if network.task == "classification" else "lesion masks"
        raise ManifestError("no_rows", f"no scan of split {split!r} has {wanted}; give them with medssl prepare --labels")
    if len(usable) < len(cases):
        logger.warning("%d of %d scans of split %s have no label and are left out", len(cases) - len(usable), len(cases), split)
    return usable


def _check_shape(network: Network, case: Case, feed: Feed) -> None:
    channels = case.shape[0] * feed.crops.context
    if network.spatial_dims != feed.crops.spatial_dims or network.in_channels != channels:
        raise ConfigError(
            f"the network takes {network.in_channels} channels in {network.spatial_dims}D, "
            f"the crops have {channels} in {feed.crops.spatial_dims}D; change in_channels, patch or crops"
        )
    if not network.architecture().is_ours:
        raise ConfigError(f"{type(network).__name__} is not of medssl, which reads no bundle that names foreign code; take MonaiNetwork")
    check_crop(network, feed.crops.size)


def _patients(cases: list[Case]) -> int:
    return len({case.row.patient for case in cases})
