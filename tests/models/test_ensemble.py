from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.data.preprocess import Preprocess
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.ensemble import Ensemble
from medssl.models.inference import Window
from medssl.models.outputs import Outputs
from medssl.models.residual_unet import ResidualUNet


def unet(channels: int = 1) -> Network:
    return ResidualUNet(spatial_dims=2, in_channels=channels, widths=(4, 8)).eval()


def probability(network: Network, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images).sigmoid()


def test_an_ensemble_says_the_mean_of_what_its_members_say() -> None:
    first, second, images = unet(), unet(), torch.randn(2, 1, 8, 8)
    mean = (probability(first, images) + probability(second, images)) / 2
    torch.testing.assert_close(probability(Ensemble(a=first, b=second), images), mean, atol=1e-6, rtol=1e-5)


def test_a_bundle_holds_an_ensemble_like_any_network(tmp_path: Path) -> None:
    ensemble, images = Ensemble(a=unet(), b=unet()), torch.randn(1, 1, 8, 8)
    Bundle("segmentation", ensemble.architecture(), Preprocess(), Window((8, 8))).write(tmp_path / "bundle", ensemble, "# card")
    read = Bundle.read(tmp_path / "bundle").load(tmp_path / "bundle")
    assert isinstance(read, Ensemble)
    torch.testing.assert_close(probability(read, images), probability(ensemble, images))


def test_members_that_take_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="one task, dimension and number of channels"):
        Ensemble(a=unet(1), b=unet(3))


def test_an_ensemble_without_members_is_refused() -> None:
    with pytest.raises(ConfigError, match="an ensemble takes"):
        Ensemble()


def test_classes_that_exclude_each_other_are_averaged_as_such() -> None:
    first, second = (ResidualUNet(spatial_dims=2, classes=3, widths=(4, 8)).eval() for _ in range(2))
    first.outputs = second.outputs = Outputs(("a", "b"), ("a",), background=True)
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        mean = (first(images).softmax(dim=1) + second(images).softmax(dim=1)) / 2
        torch.testing.assert_close(Ensemble(a=first, b=second)(images).softmax(dim=1), mean, atol=1e-6, rtol=1e-5)
