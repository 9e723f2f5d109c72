"""Self-supervised pretraining: unlabelled scans of a store in, an encoder bundle out."""

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning as L

from medssl.data.dataset import Case, load_cases
from medssl.data.feed import Feed
from medssl.data.manifest import ManifestRow
from medssl.data.seen import merged, record
from medssl.data.store import Store
from medssl.data.unlabelled import UnlabelledDataset
from medssl.errors import ConfigError, ManifestError
from medssl.models.bundle import Bundle
from medssl.models.encoder import Encoder
from medssl.models.inference import Window
from medssl.objectives.dino import DINO
from medssl.objectives.mae import MAE
from medssl.objectives.objective import Objective
from medssl.patients import patient_key
from medssl.training.planning.cost import Plan
from medssl.training.pretraining.health import Asked, Health, Watch
from medssl.training.pretraining.pictures import Pictures
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.ranks import leads
from medssl.training.run import Ended, Run, facts, fit, versions, with_weights
from medssl.training.settings import Training
from medssl.training.start import SCRATCH, start_from

logger = logging.getLogger(__name__)

_WATCH = Watch()
_PICTURES = 4  # crops in the picture of reconstructions


def pretrain(
    objective: Objective,
    feed: Feed,
    training: Training,
    *,
    run: Run,
    seed: int = 0,
    split: str = "train",
    bundle: Path | None = None,
    watch: Watch = _WATCH,
) -> Bundle | Plan | None:
    """Train an encoder on the scans of one split, without their labels.

    Args:
        objective: The method, with the encoder to train.
        feed: Crops and batches.
        training: Steps and optimiser.
        run: Where the run is kept.
        seed: Of crops, masks and views.
        split: Part of the store that may be seen.
        bundle: An encoder pretrained before, with any objective, to go on with; None starts from scratch.
        watch: How closely the features are watched.

    Returns:
        The bundle; None on the processes that help the leading one; the plan where the run is for that alone.

    Raises:
        ConfigError: The encoder does not fit the crops or the bundle.
        ManifestError: The objective reads sentences, and no scan has one.
    """
    store = Store(feed.store)
    rows = store.manifest.split(split)
    cases = load_cases(store, rows, masks=False)  # no label is seen: crops are drawn without knowing where lesion is
    _check(objective, cases, feed, training)
    start = SCRATCH if bundle is None else start_from(objective, bundle, store, feed.crops)
    watchers = _watchers(objective, cases, feed, training, store=store, run=run, seed=seed, watch=watch)
    weights = _fit(objective, cases, feed, training, run=run, seed=seed, callbacks=watchers)
    if not isinstance(weights, dict):
        return weights
    trained = Bundle(
        kind="encoder",
        architecture=objective.encoder.architecture(),
        preprocess=store.preprocess,
        window=Window(feed.crops.size, feed.crops.context),
        training={"objective": type(objective).__name__, **start.facts, **_facts(run, training, store, rows, seed=seed)},
        lineage=start.lineage,
        versions=versions(),
        seen=merged(start.seen, record("pretraining", rows, store.signs(rows)), reason=store.leakage.reason),
    )
    return trained.write(run.folder / "bundle", with_weights(objective.encoder, weights, "objective.encoder"), _card(trained))


def _facts(run: Run, training: Training, store: Store, rows: Sequence[ManifestRow], *, seed: int) -> dict[str, object]:
    return facts(run, training, seed=seed, manifest=store.manifest.digest(), patients=_patients(rows), scans=len(rows))


def _fit(
    objective: Objective, cases: list[Case], feed: Feed, training: Training, *, run: Run, seed: int, callbacks: list[L.Callback]
) -> Ended:
    """Train on unlabelled crops."""
    module = Pretrainer(objective, training, seed=seed)
    loader = feed.unlabelled(
        cases,
        positives=objective.positives,
        steps=training.steps,
        seed=seed,
        done=run.done,
        parts=training.accumulate,
        text_bytes=objective.text_bytes,
    )
    return fit(module, training, run=run, loader=loader, scans=len(cases), callbacks=callbacks)


def _watchers(
    objective: Objective, cases: list[Case], feed: Feed, training: Training, *, store: Store, run: Run, seed: int, watch: Watch
) -> list[L.Callback]:
    """Pictures and health of fixed crops on the leading process; none where the weights are spread over devices."""
    if training.strategy == "fsdp" or not leads():
        return []
    fixed = UnlabelledDataset(cases, feed.crops, seed=seed + 1, positives=objective.positives).__getitems__(range(_PICTURES))
    pictures = Pictures(fixed, run.folder / "pictures", seed=seed, every=training.checkpoint_steps)
    rows = store.manifest.split(watch.split) if watch.labelled else []
    asked = Asked.of(load_cases(store, rows), feed.crops, count=watch.labelled, seed=seed + 3) if rows else None
    if rows and asked is None:
        logger.warning("split %s has no crops with and without lesion of two patients: no neighbours and no probe", watch.split)
    images = UnlabelledDataset(cases, feed.crops, seed=seed + 2).__getitems__(range(watch.crops))["image"][:, 0]
    every, size = training.checkpoint_steps, feed.batch_size * fixed["image"].shape[1]
    return [pictures, Health(images, asked, run.folder, every=every, crops_a_step=size, watch=watch, seed=seed)]


def _check(objective: Objective, cases: list[Case], feed: Feed, training: Training) -> None:
    """Whether the parts of a run fit each other."""
    _check_shape(objective.encoder, cases[0].shape[0] * feed.crops.context, feed)
    _check_reports(objective, [case.row for case in cases])
    training.check_batch(feed.batch_size)
    _check_crops(objective, feed)
    _check_company(objective, {patient_key(case.row.patient) for case in cases}, feed.batch_size // training.accumulate)


def _check_crops(objective: Objective, feed: Feed) -> None:
    """Whether the crops are asked for what pretraining has.

    Raises:
        ConfigError: Classes or bags, small crops that the encoder does not take, or sequences told apart in another way than crops are cut.
    """
    if feed.crops.balanced or feed.crops.bag > 1:
        raise ConfigError("pretraining looks at no label and at single crops: leave feed.crops.balanced and feed.crops.bag out")
    if isinstance(objective, DINO) and objective.local_crops.count:
        objective.check_local_crops(feed.crops.size)
    if isinstance(objective, MAE) and objective.channel_drop and objective.context != feed.crops.context:
        raise ConfigError(
            f"objective.context is {objective.context} and feed.crops.context {feed.crops.context}: sequences can be hidden where both are "
            "the same"
        )


def _check_company(objective: Objective, patients: set[str], together: int) -> None:
    """Whether samples meet others that they can be compared with, without which nothing is learned.

    Raises:
        ConfigError: One sample at a time, or one patient.
    """
    name = type(objective).__name__
    if objective.compares != "nothing" and together < 2:
        raise ConfigError(f"{name} compares samples with each other, got {together} at once; batch_size / accumulate must be at least 2")
    if objective.compares == "patients" and len(patients) < 2:
        raise ConfigError(f"{name} compares patients with each other, and the split has one; take a masked method, or more patients")


def _check_shape(encoder: Encoder, channels: int, feed: Feed) -> None:
    if encoder.spatial_dims != feed.crops.spatial_dims or encoder.in_channels != channels:
        raise ConfigError(
            f"the encoder takes {encoder.in_channels} channels in {encoder.spatial_dims}D, "
            f"the crops have {channels} in {feed.crops.spatial_dims}D; change in_channels, patch or crops"
        )


def _check_reports(objective: Objective, rows: Sequence[ManifestRow]) -> None:
    if objective.text_bytes and not any(row.report for row in rows):
        raise ManifestError(
            "no_rows",
            f"{type(objective).__name__} reads sentences, and no scan has one; give a table with a column report to medssl prepare",
        )
    cut = sum(len(row.report.encode()) > objective.text_bytes for row in rows) if objective.text_bytes else 0
    if cut:
        logger.warning("%d of %d sentences are longer than text_bytes %d and are cut there", cut, len(rows), objective.text_bytes)


def _patients(rows: Sequence[ManifestRow]) -> int:
    return len({row.patient for row in rows})


def _card(bundle: Bundle) -> str:
    training = bundle.training
    origin = f"encoder {bundle.lineage[0]}" if bundle.lineage else "random weights"
    return (
        f"# Encoder pretrained with {training['objective']}\n\n"
        f"Research use only; not a medical device. An encoder finds no lesions by itself: fine-tune it with `medssl finetune`.\n\n"
        f"- pretrained on {training['scans']} scans of {training['patients']} patients\n"
        f"- {training['steps']} steps, seed {training['seed']}, started from {origin}\n"
        f"- window {list(bundle.window.size)}, context {bundle.window.context}; preprocessing and versions are in `bundle.json`\n"
    )
