import json

import pytest
import torch

from medssl.errors import BundleError, ConfigError
from medssl.models.architecture import Architecture
from medssl.models.crop_check import check_crop
from medssl.models.decoder import ViTSegmenter
from medssl.models.monai_network import MonaiNetwork
from medssl.models.vit import ViT

NETS = {
    "SwinUNETR": ({"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}, 64),
    "SegResNet": ({"init_filters": 8}, 16),
    "UNETR": ({"img_size": [16, 16], "feature_size": 8, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}, 16),
    "DynUNet": ({"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4] * 3}, 8),
    "BasicUNet": ({"features": [4, 4, 4, 4, 8, 4]}, 32),
    "SegResNetDS": ({"init_filters": 8, "blocks_down": [1, 1]}, 16),
    "AttentionUnet": ({"channels": [4, 8], "strides": [2]}, 8),
}


def segmenter(name: str, size: int = 0, **options: int) -> MonaiNetwork:
    del size
    return MonaiNetwork(f"monai.networks.nets.{name}", NETS[name][0], **{"spatial_dims": 2, **options})


@pytest.mark.parametrize("name", NETS)
def test_a_network_gives_logits_on_the_grid_of_its_input(name: str) -> None:
    images = torch.randn(1, 2, *(NETS[name][1],) * 2)
    assert segmenter(name, in_channels=2, classes=3)(images).shape == (1, 3, *images.shape[2:])


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_rebuilt_from_its_description_in_json(name: str) -> None:
    network = segmenter(name)
    described = network.architecture()
    fields = json.loads(json.dumps({"class_path": described.class_path, "init_args": described.init_args}))
    rebuilt = Architecture.from_dict(fields).build()
    rebuilt.load_state_dict(network.state_dict())
    images = torch.randn(1, 1, *(NETS[name][1],) * 2)
    assert rebuilt.eval()(images).equal(network.eval()(images))


def test_a_network_of_volumes_is_one() -> None:
    network = MonaiNetwork("monai.networks.nets.SegResNet", {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]})
    assert network(torch.randn(1, 1, 8, 8, 4)).shape == (1, 1, 8, 8, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "coarse"),
    [
        ("DynUNet", {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4] * 3}, 16),
        ("SegResNetDS", {"init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2}, 8),
    ],
)
def test_coarser_logits_come_in_training_alone(name: str, arguments: dict[str, object], coarse: int) -> None:
    asked = {**arguments, "deep_supervision": True} if name == "DynUNet" else arguments
    network, images = MonaiNetwork(f"monai.networks.nets.{name}", asked, spatial_dims=2), torch.randn(1, 1, 16, 16)
    assert network.deep_supervision
    assert [logits.shape[2] for logits in network.scales(images)] == [16, coarse]
    assert len(network.eval().scales(images)) == 1


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("os.system", {}, "below monai.networks.nets"),
        ("monai.networks.blocks.Convolution", {}, "below monai.networks.nets"),
        ("monai.networks.nets.NoSuchNet", {}, "MONAI has no"),
        ("monai.networks.nets.SegResNet", {"filters": 3}, "does not take these arguments"),
        ("monai.networks.nets.SegResNet", {"in_channels": 3}, "give spatial_dims, in_channels and classes beside"),
        ("monai.networks.nets.SegResNet", {"act": torch.nn.ReLU}, "must be numbers"),
        ("monai.networks.nets.FlexibleUNet", {"backbone": "efficientnet-b0", "pretrained": True}, "fetch weights"),
        ("monai.networks.nets.ViT", {"img_size": 16, "patch_size": 8}, "not a network that segments"),
    ],
)
def test_what_does_not_segment_or_is_of_others_is_refused(network: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MonaiNetwork(network, arguments)


def test_a_network_without_logits_says_so() -> None:
    network = MonaiNetwork("monai.networks.nets.DenseNet", {"init_features": 4, "growth_rate": 4, "block_config": [1]}, spatial_dims=2)
    with pytest.raises(ConfigError, match="returns no logits"):
        network(torch.zeros(1, 1, 32, 32))


def test_a_bundle_with_a_network_of_others_inside_is_refused() -> None:
    with pytest.raises((BundleError, ConfigError), match="below monai.networks"):
        Architecture("medssl.models.monai_network.MonaiNetwork", {"network": "os.system", "arguments": {}}).build()


def test_a_crop_that_does_not_fit_names_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"does not take crops \[12, 14\], but \[16, 16\]"):
        check_crop(segmenter("SegResNet"), (12, 14))


def test_a_crop_that_fits_leaves_the_network_as_it_was() -> None:
    network = segmenter("SegResNetDS")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_crop(network, (16, 16))
    assert network.training
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


def test_a_crop_that_an_encoder_refuses_is_refused_in_the_same_way() -> None:
    with pytest.raises(ConfigError, match=r"does not take crops \[10, 8\], but \[12, 8\]"):
        check_crop(ViTSegmenter(ViT((4, 4), width=16, depth=1, heads=2), width=4), (10, 8))
