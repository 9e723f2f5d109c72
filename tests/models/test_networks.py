from pathlib import Path

import pytest
import torch

from medssl.errors import BundleError, ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.decoder import ViTSegmenter
from medssl.models.heads import ViTClassifier
from medssl.models.residual_unet import ResidualUNet
from medssl.models.vit import ViT

NETWORKS = [
    ViTSegmenter(ViT((4, 4), width=16, depth=1, heads=2), width=4),
    ViTSegmenter(ViT((4, 4, 4), width=16, depth=1, heads=2), width=4),
    ResidualUNet(widths=(4, 8)),
    ResidualUNet(spatial_dims=3, widths=(4, 8)),
    ViTClassifier(ViT((4, 4), width=16, depth=1, heads=2)),
    ViTClassifier(ViT((4, 4, 4), width=16, depth=1, heads=2)),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_have_the_shape_of_the_task(network: Network) -> None:
    images = torch.randn(2, 1, *(8,) * network.spatial_dims)
    expected = (2, 1, *images.shape[2:]) if network.task == "segmentation" else (2, 1)
    assert network(images).shape == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_rebuilt_from_its_own_description(network: Network) -> None:
    rebuilt = network.architecture().build()
    rebuilt.load_state_dict(network.state_dict())
    images = torch.randn(1, 1, *(8,) * network.spatial_dims)
    assert rebuilt.eval()(images).equal(network.eval()(images))


def test_a_class_outside_medssl_is_never_built() -> None:
    with pytest.raises(BundleError, match="outside medssl"):
        Architecture("os.system", {"command": "true"}).build()


def test_a_function_is_never_called_in_the_place_of_a_network(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not fit"):
        Architecture("medssl.models.bundle.save_file", {"tensors": {}, "filename": str(tmp_path / "written")}).build()
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BundleError, match="does not fit"):
        Architecture("medssl.models.vit.ViT", {"pacth": [4, 4]}).build()


def test_a_segmenter_needs_a_patch_of_a_power_of_two() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        ViTSegmenter(ViT((6, 6), width=16, heads=2))
