from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.data.preprocess import Preprocess
from medssl.errors import ConfigError
from medssl.models.bundle import Bundle
from medssl.models.encoder import Encoder, visible_cells
from medssl.models.heads import Classifier
from medssl.models.inference import Window
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.unet import PyramidUNet
from medssl.models.vit import ViT

SWIN = {"in_channels": 2, "out_channels": 1, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}
ENCODERS = {
    "vit_2d": ViT((4, 4), in_channels=2, width=24, depth=2, heads=2, mask_token=True),
    "vit_3d": ViT((4, 4, 4), in_channels=2, width=24, depth=2, heads=2, positions="both", mlp="swiglu", layer_scale=0.1, registers=2),
    "residual_2d": ResidualEncoder(spatial_dims=2, in_channels=2, stage_widths=(4, 6, 8), stage_blocks=(1, 2, 1)),
    "residual_3d": ResidualEncoder(
        in_channels=2,
        stage_widths=(4, 6),
        stage_blocks=(1, 2),
        stage_strides=((1, 1, 1), (2, 2, 1)),
        stage_kernels=((3, 3, 1), (3, 3, 3)),
    ),
    "swin_3d": MonaiEncoder("monai.networks.nets.SwinUNETR", SWIN, crop=(32, 32, 32), features="swinViT"),
    "segresnet_2d": MonaiEncoder(
        "monai.networks.nets.SegResNet",
        {"spatial_dims": 2, "in_channels": 2, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
        crop=(16, 16),
        features="encode",
    ),
    "densenet_2d": MonaiEncoder(
        "monai.networks.nets.DenseNet",
        {"spatial_dims": 2, "in_channels": 2, "out_channels": 1, "init_features": 4, "growth_rate": 4, "block_config": [1, 1]},
        crop=(32, 32),
        features="features",
    ),
    "monai_vit_2d": MonaiEncoder(
        "monai.networks.nets.ViT",
        {
            "spatial_dims": 2,
            "in_channels": 2,
            "img_size": [32, 32],
            "patch_size": 8,
            "hidden_size": 24,
            "mlp_dim": 32,
            "num_layers": 1,
            "num_heads": 2,
        },
        crop=(32, 32),
    ),
}
MASKED = [name for name in ENCODERS if name.startswith(("vit", "residual"))]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return ENCODERS[request.param].eval()


def images_for(encoder: Encoder, seed: int = 0) -> Tensor:
    return torch.randn(2, 2, *(32,) * encoder.spatial_dims, generator=torch.Generator().manual_seed(seed))


def test_the_pyramid_has_the_widths_and_strides_that_the_encoder_tells(encoder: Encoder) -> None:
    maps = encoder.pyramid(images_for(encoder))
    assert [features.shape[1] for features in maps] == list(encoder.widths)
    assert [tuple(32 // cells for cells in features.shape[2:]) for features in maps] == list(encoder.strides)
    assert (encoder.widths[-1], encoder.strides[-1]) == (encoder.width, encoder.stride)


def test_pooled_features_are_the_mean_of_the_dense_ones(encoder: Encoder) -> None:
    images = images_for(encoder)
    torch.testing.assert_close(encoder.pooled(images), encoder.dense(images).flatten(2).mean(dim=2))


def test_what_is_hidden_does_not_reach_any_feature(encoder: Encoder) -> None:
    images, hidden = images_for(encoder), torch.zeros(2, *(2,) * encoder.spatial_dims, dtype=torch.bool)
    hidden[0, 0], hidden[1, 1] = True, True
    changed = images.clone()
    changed[0, :, :16], changed[1, :, 16:] = 1e3, -1e3
    for one, other in zip(encoder.pyramid(images, hidden), encoder.pyramid(changed, hidden), strict=True):
        assert one.equal(other)


def test_an_encoder_is_rebuilt_from_its_bundle(encoder: Encoder, tmp_path: Path) -> None:
    Bundle("encoder", encoder.architecture(), Preprocess(), Window((32,) * encoder.spatial_dims)).write(tmp_path / "b", encoder, "# card")
    bundle = Bundle.read(tmp_path / "b")
    rebuilt = bundle.load(tmp_path / "b")
    assert isinstance(rebuilt, Encoder)
    assert bundle.architecture == encoder.architecture() == rebuilt.architecture()
    assert rebuilt.dense(images_for(encoder)).equal(encoder.dense(images_for(encoder)))


def test_any_encoder_classifies_and_segments(encoder: Encoder) -> None:
    images = images_for(encoder)
    for network, shape in [(Classifier(encoder), (2, 1)), (PyramidUNet(encoder, convolutions=2), (2, 1, *images.shape[2:]))]:
        assert network(images).shape == shape
        assert network.architecture().build()(images).shape == shape


def test_every_parameter_of_an_encoder_serves_its_features(encoder: Encoder) -> None:
    hidden = torch.zeros(2, *(2,) * encoder.spatial_dims, dtype=torch.bool)
    hidden[0] = True
    sum(features.square().sum() for features in encoder.pyramid(images_for(encoder), hidden)).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in encoder.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
    encoder.zero_grad()


@pytest.mark.parametrize("name", MASKED)
def test_nothing_hidden_is_the_same_as_no_mask(name: str) -> None:
    encoder = ENCODERS[name].eval()
    images, nothing = images_for(encoder), torch.zeros(2, *(2,) * encoder.spatial_dims, dtype=torch.bool)
    for one, other in zip(encoder.pyramid(images), encoder.pyramid(images, nothing), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_mask_that_does_not_tile_the_crop_is_refused(name: str) -> None:
    encoder = ENCODERS[name]
    with pytest.raises(ConfigError, match="does not tile"):
        encoder.pyramid(images_for(encoder), torch.zeros(2, *(3,) * encoder.spatial_dims, dtype=torch.bool))


def test_a_cell_is_visible_where_a_visible_block_overlaps_it() -> None:
    hidden = torch.tensor([[[True, False], [True, True]]])
    assert visible_cells(hidden, (4, 4))[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert visible_cells(hidden, (2, 1))[0, 0].tolist() == [[1], [0]]
