"""Self-supervised pretraining: unlabelled scans of a store in, an encoder bundle out."""

from collections.abc import Sequence
from pathlib import Path

from medssl.data.dataset import load_cases
from medssl.data.feed import Feed
from medssl.data.manifest import ManifestRow
from medssl.data.seen import merged, record
from medssl.data.store import Store
from medssl.data.unlabelled import UnlabelledDataset
from medssl.errors import ConfigError, ManifestError
from medssl.models.bundle import Bundle
from medssl.models.encoder import Encoder
from medssl.models.inference import Window
from medssl.objectives.objective import Objective
from medssl.training.callbacks import Pictures
from medssl.training.pretrainer import Pretrainer
from medssl.training.run import Run, facts, fit, versions
from medssl.training.settings import Training
from medssl.training.start import start_from

_PICTURES = 4  # crops in the picture of reconstructions


def pretrain(
    objective: Objective, feed: Feed, training: Training, *, run: Run, seed: int = 0, split: str = "train", bundle: Path | None = None
) -> Bundle:
    """Train an encoder on the scans of one split, without their labels.

    Args:
        objective: The method, with the encoder to train.
        feed: Crops and batches.
        training: Steps and optimiser.
        run: Where the run is kept.
        seed: Of crops, masks and views.
        split: Part of the store that may be seen.
        bundle: An encoder pretrained before, with any objective, to go on with; None starts from scratch.

    Raises:
        ConfigError: The encoder does not fit the crops or the bundle.
        ManifestError: The objective reads sentences, and no scan has one.
    """
    store = Store(feed.store)
    rows = store.manifest.split(split)
    cases = load_cases(store, rows, masks=False)  # no label is seen: crops are drawn without knowing where lesion is
    channels = cases[0].shape[0] * feed.crops.context
    encoder = objective.encoder
    _check_shape(encoder, channels, feed)
    _check_reports(objective, rows)
    training.check_batch(feed.batch_size)
    lineage, before = ((), {}) if bundle is None else start_from(objective, bundle, store)
    run.open()
    fixed = UnlabelledDataset(cases, feed.crops, seed=seed + 1, positives=objective.positives)
    pictures = Pictures(fixed.__getitems__(range(_PICTURES)), run.folder / "pictures", seed=seed, every=training.checkpoint_steps)
    module = Pretrainer(objective, training, seed=seed)
    loader = feed.unlabelled(
        cases, positives=objective.positives, steps=training.steps, seed=seed, done=run.done, parts=training.accumulate
    )
    fit(module, training, run=run, loader=loader, callbacks=[pictures])
    trained = Bundle(
        kind="encoder",
        architecture=encoder.architecture(),
        preprocess=store.preprocess,
        window=Window(feed.crops.size, feed.crops.context),
        training={
            "objective": type(objective).__name__,
            **facts(run, training, seed=seed, manifest=store.manifest.digest(), patients=_patients(rows), scans=len(rows)),
        },
        lineage=lineage,
        versions=versions(),
        seen=merged(before, record("pretraining", rows, store.signs(rows)), reason=store.leakage.reason),
    )
    return trained.write(run.folder / "bundle", encoder, _card(trained))


def _check_shape(encoder: Encoder, channels: int, feed: Feed) -> None:
    if encoder.spatial_dims != feed.crops.spatial_dims or encoder.in_channels != channels:
        raise ConfigError(
            f"the encoder takes {encoder.in_channels} channels in {encoder.spatial_dims}D, "
            f"the crops have {channels} in {feed.crops.spatial_dims}D; change in_channels, patch or crops"
        )


def _check_reports(objective: Objective, rows: Sequence[ManifestRow]) -> None:
    if objective.reads_text and not any(row.report for row in rows):
        raise ManifestError(
            "no_rows",
            f"{type(objective).__name__} reads sentences, and no scan has one; give a table with a column report to medssl prepare",
        )


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
