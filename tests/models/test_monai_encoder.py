import pytest
import torch

from medssl.errors import BundleError, ConfigError
from medssl.models.architecture import Architecture
from medssl.models.monai_encoder import MonaiEncoder

SEGRESNET = {"spatial_dims": 2, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}


def test_parts_that_the_features_do_not_need_are_left_out() -> None:
    encoder = MonaiEncoder("monai.networks.nets.SegResNet", SEGRESNET, crop=(8, 8), features="encode")
    assert [name for name, _ in encoder.net.named_children()] == ["act_mod", "convInit", "down_layers"]


def test_building_leaves_the_statistics_of_normalisation_alone() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_features": 4, "growth_rate": 4, "block_config": [1]}
    encoder = MonaiEncoder("monai.networks.nets.DenseNet", arguments, crop=(16, 16), features="features")
    assert int(encoder.state_dict()["net.norm0.num_batches_tracked"]) == 0
    assert all(module.training for module in encoder.modules())


def test_a_network_that_would_fetch_weights_does_not() -> None:
    arguments = {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 3}  # pretrained by default
    encoder = MonaiEncoder("monai.networks.nets.EfficientNetBNFeatures", arguments, crop=(32, 32))
    assert encoder.stride == (32, 32)
    with pytest.raises(ConfigError, match="fetch weights"):
        MonaiEncoder("monai.networks.nets.EfficientNetBNFeatures", {**arguments, "pretrained": True}, crop=(32, 32))


@pytest.mark.parametrize(
    ("network", "arguments", "options", "message"),
    [
        ("os.system", {"command": "true"}, {}, "below monai.networks"),
        ("monai.networks_of_others.Net", {}, {}, "below monai.networks"),
        ("monai.networks.nets.NoSuchNet", {}, {}, "MONAI has no"),
        ("monai.networks.utils.save_state", {"src": {}, "path": "x"}, {}, "not a network"),
        ("monai.networks.nets.torch.nn.Linear", {}, {}, "MONAI has no"),
        ("monai.networks.nets.SegResNet", {"filters": 3}, {}, "does not take these arguments"),
        ("monai.networks.nets.SegResNet", SEGRESNET, {"features": "decoder"}, "no part or method"),
        ("monai.networks.nets.SegResNet", {**SEGRESNET, "spatial_dims": 3}, {"features": "encode"}, "does not take crops"),
        ("monai.networks.nets.FullyConnectedNet", {"in_channels": 8, "out_channels": 2, "hidden_channels": [3]}, {}, "does not take crops"),
    ],
)
def test_what_is_no_encoder_is_refused(network: str, arguments: dict[str, object], options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MonaiEncoder(network, arguments, crop=(8, 8), **options)


def test_a_bundle_with_a_class_of_others_inside_is_refused() -> None:
    with pytest.raises((BundleError, ConfigError), match="below monai.networks"):
        Architecture("medssl.models.monai_encoder.MonaiEncoder", {"network": "os.system", "arguments": {}, "crop": [8, 8]}).build()


def test_a_crop_that_does_not_fit_is_refused() -> None:
    encoder = MonaiEncoder("monai.networks.nets.SegResNet", SEGRESNET, crop=(8, 8), features="encode")
    with pytest.raises(ConfigError, match="multiple of the encoder's stride"):
        encoder.dense(torch.zeros(1, 1, 9, 8))


def test_a_network_of_tokens_takes_its_own_crop_alone() -> None:
    sizes = {"spatial_dims": 2, "in_channels": 1, "hidden_size": 24, "mlp_dim": 32, "num_layers": 1, "num_heads": 2}
    encoder = MonaiEncoder("monai.networks.nets.ViT", {**sizes, "img_size": [16, 16], "patch_size": 8}, crop=(16, 16))
    with pytest.raises(ConfigError, match=r"crops of \[16, 16\] alone"):
        encoder.dense(torch.zeros(1, 1, 24, 16))
