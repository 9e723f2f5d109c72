"""Fine-tuning: a lesion network from a pretrained encoder or from scratch, and its operating points."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.classes import Classes, check_known
from medssl.data.dataset import Case, load_cases
from medssl.data.feed import Feed
from medssl.data.seen import Seen, merged, record
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.evaluation.lesion_point import check_rule
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.crop_check import check_crop
from medssl.models.inference import Window
from medssl.training.classifier import Classifier
from medssl.training.detector import Detector
from medssl.training.labelled import channel_weights, check_cases, check_loss, is_usable, outputs_of
from medssl.training.lesion_point import lesion_point
from medssl.training.lesions import LesionModule
from medssl.training.losses import Loss
from medssl.training.plan import Plan
from medssl.training.run import Ended, Run, facts, fit, versions, with_weights
from medssl.training.segmenter import Segmenter
from medssl.training.settings import Training
from medssl.training.start import start_from
from medssl.training.validation import operating_points, score_cases
from medssl.views.augment import Augment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Which labels are used, and how.

    Args:
        positive: Class names that count as positive; empty for every class but the usual names of "nothing there".
        rule: Rule of the operating point on validation scans.
        lesion_rule: Rule of the score from which a detector's mark is a lesion: `f1`, or `fp <= 1` for so many false positives a scan.
        train_split: Part of the store to learn from.
        validation_split: Part of the store that thresholds are chosen on.
        patients: Labelled patients to learn from, drawn with the seed of the run; None for all.
        classes: Class names in the order of the network's channels, behind the background of a segmenter; empty for lesion against none.
        multi_label: A scan may have several classes at once, with `;` between them in the table.
        mask_values: What masks hold where each class is; empty for 1, 2, 3, ...

    Raises:
        ConfigError: Fewer than one patient, or classes that contradict themselves.
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

    @cached_property
    def named(self) -> Classes:
        """The classes, and which of them are positive."""
        return Classes(self.classes, self.positive, self.multi_label, self.mask_values)

    def __post_init__(self) -> None:
        check_rule(self.lesion_rule)
        _ = self.named
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
) -> Bundle | Plan | None:
    """Train a lesion network on labelled scans and lock its thresholds on validation scans.

    Args:
        network: Segmenter or classifier.
        feed: Crops and batches.
        training: Steps and optimiser.
        run: Where the run is kept.
        seed: Of crops and views.
        bundle: A pretrained encoder, or None to start from scratch.
        labels: Which labels are used.
        views: Augmentation.
        loss: What is minimised; None for Dice and cross entropy of a segmenter, cross entropy of a classifier.

    Returns:
        The bundle; None on the processes that help the leading one; the plan where the run is for that alone.

    Raises:
        ConfigError: A network that does not fit the crops or the bundle.
        ManifestError: No usable label.
    """
    store = Store(feed.store)
    network.outputs = outputs_of(labels.named, network)
    check_loss(loss, network, feed.crops)
    train = labels.drawn(_labelled(network, store, labels, labels.train_split), seed=seed)
    validation = _labelled(network, store, labels, labels.validation_split)
    _check_shape(network, train[0], feed)
    check_cases(network, train, split=labels.train_split)
    training.check_batch(feed.batch_size)
    lineage, before = ((), {}) if bundle is None else start_from(network, bundle, store)
    weights = _fit(network, train, feed, training, run=run, seed=seed, views=views, loss=loss)
    if not isinstance(weights, dict):
        return weights
    network = with_weights(network, weights, "network")
    trained = replace(
        _locked(network, validation, store, feed, labels),
        training=facts(run, training, seed=seed, manifest=store.manifest.digest(), patients=_patients(train), scans=len(train)),
        lineage=lineage,
        seen=_seen(store, train, validation, before),
    )
    return trained.write(run.folder / "bundle", network, _card(trained))


def _fit(
    network: Network, train: list[Case], feed: Feed, training: Training, *, run: Run, seed: int, views: Augment, loss: Loss | None = None
) -> Ended:
    """Train on labelled crops."""
    balance = channel_weights(loss, network, train)
    module = MODULES[network.task](network, training, views=views, seed=seed, loss=loss, weights=balance)
    loader = feed.labelled(train, steps=training.steps, seed=seed, done=run.done, parts=training.accumulate)
    return fit(module, training, run=run, loader=loader, scans=len(train), callbacks=[])


def _locked(network: Network, validation: list[Case], store: Store, feed: Feed, labels: Labels) -> Bundle:
    """The trained network described, with its thresholds locked on validation scans."""
    window = Window(feed.crops.size, feed.crops.context)
    scored = score_cases(network, validation, window)
    return Bundle(
        kind=network.task,
        architecture=network.architecture(),
        preprocess=store.preprocess,
        window=window,
        class_names=network.outputs.positive or labels.positive,
        outputs=network.outputs,
        operating_points=operating_points(scored, rule=labels.rule) | lesion_point(scored, rule=labels.lesion_rule),
        versions=versions(),
    )


def _seen(store: Store, train: list[Case], validation: list[Case], before: Seen) -> dict[str, Any]:
    """Digests of the scans of this run and of the run that it started from."""
    learned, chosen = ([case.row for case in cases] for cases in (train, validation))
    scans = [*record("training", learned, store.signs(learned)), *record("validation", chosen, store.signs(chosen))]
    return merged(before, scans, reason=store.leakage.reason)


def _labelled(network: Network, store: Store, labels: Labels, split: str) -> list[Case]:
    """Scans of a split whose answer is known in the way that the network needs."""
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


def _card(bundle: Bundle) -> str:
    training = bundle.training
    points = "\n".join(
        f"- {unit}: {np.round(float(str(point['threshold'])), 4)} ({point['rule']}, chosen on {point['n']} {unit}s of validation)"
        for unit, point in bundle.operating_points.items()
    )
    origin = f"encoder {bundle.lineage[0]}" if bundle.lineage else "random weights (from scratch)"
    return (
        f"# Lesion {bundle.kind}\n\nResearch use only; not a medical device.\n\n"
        f"- trained on {training['scans']} scans of {training['patients']} patients, {training['steps']} steps, seed {training['seed']}\n"
        f"- started from {origin}\n- positive means: {', '.join(bundle.class_names) or 'any lesion'}\n\n"
        f"## Locked thresholds\n\n{points}\n\n"
        "## Limits\n\nMeasured performance is in the report of `medssl evaluate`. Scans of other scanners, sequences, ages or\n"
        "diseases than those it was trained on may be scored wrongly.\n"
    )
