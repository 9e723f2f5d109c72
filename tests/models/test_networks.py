from pathlib import Path

import pytest
import torch

from medssl.errors import BundleError, ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.decoder import ViTSegmenter
from medssl.models.heads import AttentionClassifier, ViTClassifier
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


def test_what_is_dropped_in_training_changes_no_weights() -> None:
    def described(**options: object) -> Architecture:
        return ViTClassifier(ViT((4, 4), width=16, depth=2, heads=2, **options), dropout=0.1).architecture()  # type: ignore[arg-type]

    assert described().same_weights(described(drop_path=0.2))
    assert described() != described(drop_path=0.2)
    assert not described().same_weights(described(layer_scale=0.1))


def bags(encoder_dims: int = 2) -> AttentionClassifier:
    return AttentionClassifier(ViT((4,) * encoder_dims, width=16, depth=1, heads=2), classes=3, hidden=8).eval()


def test_attention_pools_slices_as_in_equations_7_and_9() -> None:
    network, images = bags(), torch.randn(2, 5, 1, 8, 8)
    expected = []
    for bag in images:
        features = network.encoder.pooled(bag)
        powers = []
        for h in features:
            content, gate = (part.weight @ h + part.bias for part in (network.content, network.gate))
            gated = torch.tanh(content) * torch.sigmoid(gate)
            powers.append(torch.exp(network.weight.weight[0] @ gated + network.weight.bias[0]))
        pooled = sum(power / sum(powers) * h for power, h in zip(powers, features, strict=True))
        expected.append(network.head(pooled))
    torch.testing.assert_close(network(images), torch.stack(expected))


def test_the_order_of_slices_does_not_count_nor_do_repeats_of_all_of_them() -> None:
    network, images = bags(), torch.randn(1, 4, 1, 8, 8)
    torch.testing.assert_close(network(images[:, torch.tensor([2, 0, 3, 1])]), network(images))
    torch.testing.assert_close(network(torch.cat([images, images], dim=1)), network(images))


def test_a_bag_network_is_rebuilt_from_its_own_description() -> None:
    network, images = bags(), torch.randn(1, 4, 1, 8, 8)
    rebuilt = network.architecture().build()
    rebuilt.load_state_dict(network.state_dict())
    assert rebuilt.eval()(images).equal(network(images))


def test_attention_over_volumes_is_refused() -> None:
    with pytest.raises(ConfigError, match="attention pools slices"):
        bags(3)
