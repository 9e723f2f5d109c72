"""What a run starts from."""

from pathlib import Path

import pytest
from torch import nn

from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.decoder import ViTSegmenter
from medssl.models.ensemble import Ensemble
from medssl.models.heads import Classifier
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from medssl.models.vit import ViT
from medssl.training.start import start_from


def vit(width: int = 16) -> ViT:
    return ViT([4, 4], width=width, depth=1, heads=2)


def written(folder: Path, network: Network) -> Path:
    Bundle(network.task, network.architecture(), Preprocess(), Window((16, 16))).write(folder, network, "")
    return folder


def start(network: nn.Module, bundle: Path, store: Path) -> tuple[str, ...]:
    return start_from(network, bundle, Store(store)).lineage


def test_a_run_starts_from_the_encoder_of_a_lesion_network(tmp_path: Path, store: Path) -> None:
    segmenter, classifier = ViTSegmenter(vit()), Classifier(vit())
    before = {name: tensor.clone() for name, tensor in classifier.head.state_dict().items()}
    bundle = written(tmp_path / "bundle", segmenter)
    assert start(classifier, bundle, store) == (Bundle.read(bundle).model_id,)
    found = classifier.encoder.state_dict()
    assert all(tensor.equal(found[name]) for name, tensor in segmenter.encoder.state_dict().items())
    assert all(tensor.equal(before[name]) for name, tensor in classifier.head.state_dict().items())


def test_an_encoder_unlike_that_of_the_lesion_network_is_named(tmp_path: Path, store: Path) -> None:
    bundle = written(tmp_path / "bundle", ViTSegmenter(vit(width=8)))
    with pytest.raises(ConfigError, match=r"differs from the bundle's in width 16 \(bundle: 8\)"):
        start(ViTSegmenter(vit()), bundle, store)


@pytest.mark.parametrize("network", [ResidualUNet(widths=(2, 4)), Ensemble(a=ViTSegmenter(vit()), b=ViTSegmenter(vit()))])
def test_a_network_on_no_one_encoder_is_no_start(tmp_path: Path, store: Path, network: Network) -> None:
    bundle = written(tmp_path / "bundle", network)
    with pytest.raises(ConfigError, match=f"holds a {type(network).__name__}, which is not built on one encoder"):
        start(ViTSegmenter(vit()), bundle, store)
