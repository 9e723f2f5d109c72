"""Self-supervised pretraining: unlabelled scans of a store in, an encoder bundle out."""

from collections.abc import Sequence

import torch

from medssl.data.dataset import CropDataset, load_cases
from medssl.data.feed import Feed
from medssl.data.manifest import ManifestRow
from medssl.data.seen import merged, record
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.bundle import Bundle
from medssl.models.encoder import Encoder
from medssl.models.inference import Window
from medssl.objectives.objective import Objective
from medssl.training.callbacks import Pictures
from medssl.training.pretrainer import Pretrainer
from medssl.training.run import Run, facts, fit, versions
from medssl.training.settings import Training

_PICTURES = 4  # crops in the picture of reconstructions


def pretrain(objective: Objective, feed: Feed, training: Training, *, run: Run, seed: int = 0, split: str = "train") -> Bundle:
    """Train an encoder on the scans of one split, without their labels.

    Args:
        objective: The method, with the encoder to train.
        feed: Crops and batches.
        training: Steps and optimiser.
        run: Where the run is kept.
        seed: Of crops, masks and views.
        split: Part of the store that may be seen.

    Raises:
        ConfigError: The encoder does not fit the crops.
    """
    store = Store(feed.store)
    rows = store.manifest.split(split)
    cases = load_cases(store, rows, masks=False)  # no label is seen: crops are drawn without knowing where lesion is
    channels = cases[0].shape[0] * feed.crops.context
    encoder = objective.encoder
    _check_shape(encoder, channels, feed)
    run.open()
    fixed = CropDataset(cases, feed.crops, seed=seed + 1)
    pictures = Pictures(
        torch.stack([fixed[n]["image"] for n in range(_PICTURES)]), run.folder / "pictures", seed=seed, every=training.checkpoint_steps
    )
    module = Pretrainer(objective, training, seed=seed)
    fit(module, training, run=run, loader=feed.loader(cases, steps=training.steps, seed=seed, done=run.done), callbacks=[pictures])
    bundle = Bundle(
        kind="encoder",
        architecture=encoder.architecture(),
        preprocess=store.preprocess,
        window=Window(feed.crops.size, feed.crops.context),
        training={
            "objective": type(objective).__name__,
            **facts(run, training, seed=seed, manifest=store.manifest.digest(), patients=_patients(rows), scans=len(rows)),
        },
        versions=versions(),
        seen=merged({}, record("pretraining", rows, store.signs(rows)), reason=store.leakage.reason),
    )
    return bundle.write(run.folder / "bundle", encoder, _card(bundle))


def _check_shape(encoder: Encoder, channels: int, feed: Feed) -> None:
    if encoder.spatial_dims != feed.crops.spatial_dims or encoder.in_channels != channels:
        raise ConfigError(
            f"the encoder takes {encoder.in_channels} channels in {encoder.spatial_dims}D, "
            f"the crops have {channels} in {feed.crops.spatial_dims}D; change in_channels, patch or crops"
        )


def _patients(rows: Sequence[ManifestRow]) -> int:
    return len({row.patient for row in rows})


def _card(bundle: Bundle) -> str:
    training = bundle.training
    return (
        f"# Encoder pretrained with {training['objective']}\n\n"
        f"Research use only; not a medical device. An encoder finds no lesions by itself: fine-tune it with `medssl finetune`.\n\n"
        f"- pretrained on {training['scans']} scans of {training['patients']} patients\n"
        f"- {training['steps']} steps, seed {training['seed']}\n"
        f"- window {list(bundle.window.size)}, context {bundle.window.context}; preprocessing and versions are in `bundle.json`\n"
    )
