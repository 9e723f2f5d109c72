"""Whole runs of each protocol: what the bundle holds and records."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medssl.data.store import Store
from medssl.models.bundle import Bundle
from medssl.models.decoder import ViTSegmenter
from medssl.models.neighbours import Neighbours
from medssl.models.vit import ViT
from medssl.scoring.finding import Finding
from medssl.scoring.folder import score_split
from medssl.scoring.predictor import Predictor
from medssl.training.finetuning.lesions import LesionModule
from medssl.training.launch import launch_finetune, launch_pretrain
from medssl.training.protocols import advisor
from medssl.training.start import start_from
from tests.training.finetuning.classes_store import write_classes
from tests.training.finetuning.test_class_runs import settings, tuned
from tests.training.test_launch import finetune_config, pretrain_config


@pytest.fixture
def encoder(tmp_path: Path, store: Path) -> Path:
    """The bundle of an encoder."""
    launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")])
    return tmp_path / "run" / "bundle"


def launched(
    tmp_path: Path, store: Path, bundle: Path | None, protocol: str, *options: str, network: str = "decoder.ViTSegmenter"
) -> Bundle:
    config = finetune_config(tmp_path, store, network, bundle)
    return launch_finetune([*config, "--protocol", protocol, *options, "--out", str(tmp_path / "fine")])


def weights_of(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor for name, tensor in load_file(folder / "weights.safetensors").items() if name.startswith(prefix)
    }


@pytest.mark.parametrize("protocol", ["light", "linear", "knn"])
def test_the_encoder_in_the_bundle_of_a_frozen_protocol_is_the_pretrained_one(
    tmp_path: Path, store: Path, encoder: Path, protocol: str
) -> None:
    bundle = launched(tmp_path, store, encoder, protocol)
    before, after = weights_of(encoder), weights_of(tmp_path / "fine" / "bundle", "encoder.")
    assert bundle.training["protocol"]["name"] == protocol  # type: ignore[index]
    assert set(before) == set(after)
    assert all(before[name].equal(after[name]) for name in before)


def test_adapters_are_merged_into_an_ordinary_network(tmp_path: Path, store: Path, encoder: Path) -> None:
    bundle = launched(tmp_path, store, encoder, "lora", "--tuning.rank", "2")
    network = bundle.load(tmp_path / "fine" / "bundle")
    before = weights_of(encoder)
    assert type(network) is ViTSegmenter
    changed = {name for name, tensor in network.encoder.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {f"blocks.0.{name}.weight" for name in ("qkv", "project", "mlp.0", "mlp.2")}
    assert bundle.training["protocol"] == {"name": "lora", "rank": 2, "alpha": 16.0}


def test_the_best_step_of_adapters_is_kept_as_that_of_any_network(tmp_path: Path, store: Path, encoder: Path) -> None:
    options = ("--selection.metric", "loss", "--selection.every_steps", "2", "--selection.average", "0.9")
    bundle = launched(tmp_path, store, encoder, "lora", *options)
    assert len(bundle.training["selection"]["looks"]) == 2  # type: ignore[index]
    assert type(bundle.load(tmp_path / "fine" / "bundle")) is ViTSegmenter


@pytest.mark.parametrize("network", ["decoder.ViTSegmenter", "heads.ViTClassifier"])
def test_neighbours_give_a_bundle_that_scores(tmp_path: Path, store: Path, encoder: Path, network: str) -> None:
    bundle = launched(tmp_path, store, encoder, "knn", "--tuning.bank", "64", network=network)
    assert bundle.training["steps"] == 0
    assert bundle.operating_points["slice"]["chosen_on"] == "validation"
    predictor = Predictor(tmp_path / "fine" / "bundle")
    assert isinstance(predictor.network, Neighbours)


@pytest.mark.parametrize("stop_at", [1, 3])  # while the decoder learns alone, and behind that
def test_a_sawtooth_that_is_stopped_ends_with_the_weights_of_one_that_is_not(
    tmp_path: Path, store: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    options = ("--tuning.decoder_first", "0.5", "--training.checkpoint_steps", "1")
    (tmp_path / "whole").mkdir()
    whole = launched(tmp_path / "whole", store, encoder, "sawtooth", *options)
    step = LesionModule.training_step

    def stop(module: LesionModule, batch: object, batch_idx: int) -> torch.Tensor:
        if module.global_step == stop_at:
            raise InterruptedError
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LesionModule, "training_step", stop)
        with pytest.raises(InterruptedError):
            launched(tmp_path, store, encoder, "sawtooth", *options)
    resumed = launched(tmp_path, store, encoder, "sawtooth", *options, "--resume", "true")
    assert resumed.weights_id == whole.weights_id


def named(
    tmp_path: Path, network: str, protocol: str, *, channels: int, labels: dict[str, object], store: Path, bag: int = 1
) -> tuple[Bundle, list[Finding]]:
    """A run on named classes, and what its bundle says of test scans."""
    config = settings(store, network, classes=channels, labels=labels)
    config["feed"]["crops"]["bag"] = bag
    bundle = tuned(tmp_path, {**config, "protocol": protocol, "tuning": {"bank": 64}})
    score_split(Predictor(tmp_path / "run" / "bundle"), Store(store), "test", tmp_path / "results")
    return bundle, [Finding.read(path) for path in sorted((tmp_path / "results" / "scans").glob("*.json"))]


def test_neighbours_tell_classes_of_scans_from_bags_of_slices(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", ["normal", "benign", "malignant"])
    labels: dict[str, object] = {"classes": ["normal", "benign", "malignant"]}
    bundle, found = named(tmp_path, "heads.AttentionClassifier", "knn", channels=3, labels=labels, store=store, bag=3)
    assert bundle.outputs.names == ("normal", "benign", "malignant")
    assert bundle.architecture.init_args["exclusive"]
    assert all(sum(one.class_scores.values()) == pytest.approx(1) for one in found)


def test_neighbours_tell_several_labels_at_once(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", ["nodule;effusion", "effusion", "normal"])
    labels: dict[str, object] = {"classes": ["nodule", "effusion"], "multi_label": True}
    bundle, found = named(tmp_path, "heads.AttentionClassifier", "knn", channels=2, labels=labels, store=store, bag=3)
    assert not bundle.outputs.exclusive
    assert "exclusive" not in bundle.architecture.init_args
    assert all(set(one.class_scores) == {"nodule", "effusion"} for one in found)


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_frozen_features_tell_classes_of_a_mask(tmp_path: Path, protocol: str) -> None:
    store = write_classes(tmp_path / "store", ["", ""], values=[(2, 4), (4,)])
    labels: dict[str, object] = {"classes": ["oedema", "core"], "mask_values": [2, 4]}
    bundle, found = named(tmp_path, "decoder.ViTSegmenter", protocol, channels=3, labels=labels, store=store)
    assert bundle.outputs.background
    assert len(found) == 2


def test_advice_is_recorded_and_comes_from_training_patients_alone(
    tmp_path: Path, store: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, read, image = [], advisor.advise, Store.image

    def watched(*args: object, **kwargs: object) -> advisor.Advice:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "image", lambda self, row: asked.append(row.split) or image(self, row))
            return read(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(advisor, "advise", watched)
    with caplog.at_level("INFO"):
        bundle = launched(tmp_path, store, encoder, "auto")
    advice = bundle.training["advice"]
    assert set(asked) == {"train"}
    assert advice["protocol"] == bundle.training["protocol"]["name"]  # type: ignore[index]
    assert advice["patients"] == advice["probe"]["patients"] == 2  # type: ignore[index]
    assert advice["reason"] in caplog.text  # type: ignore[index]
    assert advice["reason"] in (tmp_path / "fine" / "bundle" / "MODEL_CARD.md").read_text()  # type: ignore[index]


def test_what_was_adapted_is_logged_and_recorded(tmp_path: Path, store: Path, encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = ("--feed.crops.context", "3", "--network.init_args.encoder.init_args.in_channels", "3")
    with caplog.at_level("INFO"):
        bundle = launched(tmp_path, store, encoder, "light", *wide)
    said = "first layer of 1 channels for 3 channels (3 slices each)"
    assert bundle.training["adapted"] == [said]
    assert said in caplog.text
    assert said in (tmp_path / "fine" / "bundle" / "MODEL_CARD.md").read_text()


def test_weights_arrive_in_an_encoder_that_drops_paths(store: Path, encoder: Path) -> None:
    network = ViTSegmenter(ViT([4, 4], width=16, depth=1, heads=2, drop_path=0.2))
    start_from(network, encoder, Store(store))
    before = weights_of(encoder)
    assert all(before[name].equal(tensor) for name, tensor in network.encoder.state_dict().items())


def test_a_frozen_encoder_without_a_bundle_is_warned_of(tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    launched(tmp_path, store, None, "light")
    assert "freezes an encoder that starts from no bundle" in caplog.text
