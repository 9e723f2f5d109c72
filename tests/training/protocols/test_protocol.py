"""Protocols of fine-tuning, asked step by step."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.data.dataset import Crops
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.decoder import ViTSegmenter
from medssl.models.encoder import Encoder
from medssl.models.heads import AttentionClassifier, Classifier
from medssl.models.linear import LinearSegmenter
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.residual_unet import ResidualUNet
from medssl.models.unet import PyramidUNet
from medssl.models.vit import ViT
from medssl.objectives.objective import Objective
from medssl.training.finetuning import lesions
from medssl.training.finetuning.segmenter import Segmenter
from medssl.training.protocols.protocol import Light, Partial, Protocol
from medssl.training.protocols.tuning import Name, Tuning
from medssl.training.schedule import Pace
from medssl.training.settings import Training
from medssl.views.augment import Augment

ENCODERS = {
    "vit": lambda: ViT((4, 4), width=16, depth=4, heads=2, drop_path=0.5),
    "dino": lambda: ViT((4, 4), width=16, depth=4, heads=2, drop_path=0.5, registers=2, mask_token=True, layer_scale=0.1),
    "residual": lambda: ResidualEncoder(spatial_dims=2, stage_widths=(4, 6), stage_blocks=(1, 2)),
    "batch_norm": lambda: MonaiEncoder(
        "monai.networks.nets.DenseNet",
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_features": 4, "growth_rate": 4, "block_config": [1, 1]},
        crop=(32, 32),
        features="features",
    ),
}
CROPS = Crops((32, 32))
FROZEN = {"light": Tuning().protocol("light"), "linear": Tuning().protocol("linear")}


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    return ENCODERS[name]()


def module(network: Network, protocol: Protocol, *, steps: int = 4) -> Segmenter:
    network = protocol.rebuilt(network, [], CROPS, seed=0)
    found = Segmenter(network, Training(steps=steps, warmup=0, learning_rate=0.01), views=Augment(), seed=0, protocol=protocol)
    found.log = unlogged  # type: ignore[method-assign]
    return found


def unlogged(*args: object, **kwargs: object) -> None:
    del args, kwargs


def trained(segmenter: Segmenter, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Steps as Lightning takes them; returns the rate of the first group at each."""
    configured = segmenter.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]  # type: ignore[index,typeddict-item]
    generator, rates = torch.Generator().manual_seed(0), []
    segmenter.train()
    for step in range(steps):
        monkeypatch.setattr(Segmenter, "global_step", step)
        images = torch.randn(2, 1, 32, 32, generator=generator)
        batch = {"image": images, "lesion": (images > 0).float(), "label": torch.ones(2), "number": torch.arange(2)}
        rates.append(optimizer.param_groups[0]["lr"])
        segmenter.training_step(batch, step).backward()  # type: ignore[arg-type,no-untyped-call]
        segmenter.on_before_optimizer_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return rates


def state(part: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in part.state_dict().items()}


def moved(before: dict[str, Tensor], part: torch.nn.Module) -> set[str]:
    return {name for name, tensor in part.state_dict().items() if not tensor.equal(before[name])}


@pytest.mark.parametrize("protocol", FROZEN)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_frozen_encoder_is_bit_identical_after_training(name: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = module(PyramidUNet(encoder(name)), FROZEN[protocol])
    before, whole = state(segmenter.network.encoder), state(segmenter.network)  # type: ignore[arg-type]
    trained(segmenter, 3, monkeypatch)
    assert moved(before, segmenter.network.encoder) == set()  # type: ignore[arg-type]
    assert moved(whole, segmenter.network)


def test_everything_moves_in_full_fine_tuning_and_statistics_too(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = module(PyramidUNet(encoder("batch_norm")), Tuning().protocol("full"))
    before = state(segmenter.network.encoder)  # type: ignore[arg-type]
    trained(segmenter, 2, monkeypatch)
    assert moved(before, segmenter.network.encoder) == set(before)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ENCODERS)
def test_partial_tuning_moves_the_named_depth_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = module(PyramidUNet(encoder(name)), Partial((0.25, 0.5)))
    layers = segmenter.network.encoder.layers()  # type: ignore[operator,union-attr]
    tuned = {name for layer in layers[round(len(layers) / 4) : round(len(layers) / 2)] for name in layer}
    before = state(segmenter.network.encoder)  # type: ignore[arg-type]
    trained(segmenter, 2, monkeypatch)
    changed = moved(before, segmenter.network.encoder)  # type: ignore[arg-type]
    parts = {layer.rpartition(".")[0] for layer in tuned}
    assert changed
    assert all(change.rpartition(".")[0] in parts for change in changed)


def test_the_depth_that_is_tuned_follows_the_objective_of_the_bundle() -> None:
    depths = {name: Tuning().protocol("partial", objective=name).facts()["depth"] for name in ("SimCLR", "MAE")}
    assert depths == {"SimCLR": (0.25, 0.5), "MAE": (0.5, 0.75)}


def test_every_objective_has_a_depth(root: Path) -> None:
    for path in (root / "medssl" / "objectives").glob("*.py"):
        __import__(f"medssl.objectives.{path.stem}")
    found, queue = set(), [Objective]
    while queue:
        queue += [one for one in queue.pop().__subclasses__() if found.add(one) is None]  # type: ignore[func-returns-value]
    names = {one.__name__ for one in found if one.__module__.startswith("medssl.")}
    assert names
    assert all(Tuning().protocol("partial", objective=name) for name in names)


def test_partial_tuning_of_an_unknown_objective_asks_for_the_depth() -> None:
    with pytest.raises(ConfigError, match=r"give tuning\.depth"):
        Tuning().protocol("partial")
    assert Tuning(depth=(0.0, 0.5)).protocol("partial") == Partial((0.0, 0.5))


def test_rates_fall_layer_by_layer() -> None:
    network = ViTSegmenter(ViT((4, 4), width=16, depth=2, heads=2))
    paces = Tuning(decay=0.5).protocol("llrd").paces(network, Training())
    rates = {name: pace.rate for pace in paces for name in pace.names}
    of = ["head.bias", "encoder.norm.weight", "encoder.blocks.1.qkv.weight", "encoder.blocks.0.qkv.weight", "encoder.embed.weight"]
    assert [rates[name] for name in of] == [1.0, 0.5, 0.5, 0.25, 0.125]
    assert set(rates) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("name", ["vit", "batch_norm"])
def test_the_decoder_goes_first_and_the_encoder_follows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Tuning(decoder_first=0.5).protocol("sawtooth")
    first, whole = (module(PyramidUNet(encoder(name)), protocol, steps=8) for _ in range(2))
    before = state(first.network.encoder)  # type: ignore[arg-type]
    rates = trained(first, 4, monkeypatch)
    assert moved(before, first.network.encoder) == set()  # type: ignore[arg-type]
    rates = trained(whole, 8, monkeypatch)
    assert moved(before, whole.network.encoder)  # type: ignore[arg-type]
    assert rates[3] < rates[2] > rates[0]  # one tooth up and down
    assert rates[4] > rates[3]  # and anew
    assert rates[7] < rates[4]


@pytest.mark.parametrize(("name", "times"), [("full", 1), ("light", 1), ("sawtooth", 2)])
def test_parts_change_their_mode_at_the_steps_where_others_learn_alone(name: Name, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, change = list[int](), lesions.settle

    def counted(network: Network, paces: Sequence[Pace], step: int) -> None:
        calls.append(step)
        change(network, paces, step)

    monkeypatch.setattr(lesions, "settle", counted)
    segmenter = module(PyramidUNet(encoder("vit")), Tuning(decoder_first=0.5).protocol(name))
    trained(segmenter, 4, monkeypatch)
    assert len(calls) == times
    trained(segmenter, 1, monkeypatch)  # which puts all of it in training mode before
    assert segmenter.network.encoder.training == (name == "full")  # type: ignore[union-attr]


def test_a_protocol_that_needs_an_encoder_is_refused_without_one() -> None:
    with pytest.raises(ConfigError, match="ResidualUNet has none"):
        Light().paces(ResidualUNet(widths=(4, 8)), Training())


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_a_detector_has_no_head_for_features_alone(protocol: Name) -> None:
    network = PyramidUNet(encoder("vit"))
    network.task = "detection"
    with pytest.raises(ConfigError, match="finds boxes; take light"):
        Tuning().protocol(protocol).rebuilt(network, [], CROPS, seed=0)


def test_a_linear_segmenter_is_linear_in_the_features() -> None:
    network = LinearSegmenter(encoder("vit")).eval()
    image = torch.randn(1, 1, 16, 16)
    logits = network(image)
    with torch.no_grad():
        for head in network.heads:
            head.weight *= 2  # type: ignore[operator]
            head.bias *= 2  # type: ignore[operator]
    assert logits.shape == (1, 1, 16, 16)
    assert torch.allclose(network(image), 2 * logits, atol=1e-5)


def test_the_linear_probe_replaces_the_decoder_and_keeps_a_linear_head() -> None:
    segmenter, classifier = ViTSegmenter(ViT((4, 4), width=16, depth=1, heads=2)), Classifier(encoder("vit"))
    assert isinstance(Tuning().protocol("linear").rebuilt(segmenter, [], CROPS, seed=0), LinearSegmenter)
    assert Tuning().protocol("linear").rebuilt(classifier, [], CROPS, seed=0) is classifier


@pytest.mark.parametrize("numbers", [{"depth": (0.5, 0.5)}, {"decay": 0.0}, {"decoder_first": 1.0}, {"rank": 0}, {"alpha": 0.0}])
def test_a_number_out_of_range_is_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tuning"):
        Tuning(**numbers)  # type: ignore[arg-type]


def test_the_layers_of_a_monai_network_are_its_parts_so_that_its_first_ones_still_learn() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
    dense = MonaiEncoder("monai.networks.nets.DenseNet121", arguments, crop=(64, 64), features="features")
    names = [name for layer in dense.layers() for name in layer]
    assert sorted(names) == sorted(name for name, _ in dense.named_parameters())
    assert 6 <= len(dense.layers()) <= 14
    paces = Tuning().protocol("llrd").paces(Classifier(dense), Training())
    assert min(pace.rate for pace in paces) > 0.01


def test_a_linear_probe_of_bags_is_refused() -> None:
    network = AttentionClassifier(ViT((4, 4), width=8, depth=1, heads=1))
    with pytest.raises(ConfigError, match="take protocol light"):
        FROZEN["linear"].rebuilt(network, [], CROPS, seed=0)
