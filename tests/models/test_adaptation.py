import pytest
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.adaptation import Input, check_alike, fitted, resliced
from medssl.models.encoder import Encoder
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.patches import resized_positions
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT

CROP = Input((16, 16))


def vit(channels: int, **options: object) -> ViT:
    return ViT((4, 4), in_channels=channels, width=16, depth=1, heads=2, **options).eval()  # type: ignore[arg-type]


def residual(channels: int) -> ResidualEncoder:
    return ResidualEncoder(spatial_dims=2, in_channels=channels, stage_widths=(4, 6), stage_blocks=(1, 1)).eval()


def monai(channels: int) -> MonaiEncoder:
    arguments = {"spatial_dims": 2, "in_channels": channels, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    return MonaiEncoder("monai.networks.nets.SegResNet", arguments, crop=(16, 16), features="encode").eval()  # type: ignore[return-value]


def monai_vit(size: int) -> MonaiEncoder:
    arguments = {"in_channels": 1, "img_size": [size, size], "patch_size": 8, "hidden_size": 12, "mlp_dim": 8, "num_layers": 1}
    return MonaiEncoder("monai.networks.nets.ViT", {**arguments, "num_heads": 2, "spatial_dims": 2}, crop=(size, size)).eval()  # type: ignore[return-value]


def moved(found: Encoder, wanted: Encoder, before: Input = CROP, after: Input = CROP) -> list[str]:
    """Put weights of one encoder into another; returns what was adapted."""
    check_alike(found.architecture(), wanted.architecture())
    weights, said = fitted(found.state_dict(), found.architecture(), wanted, before=before, after=after)
    wanted.load_state_dict(weights)
    return said


@pytest.mark.parametrize("build", [vit, residual, monai])
def test_equal_channels_give_what_one_gave(build: object) -> None:
    one, three = build(1), build(3)  # type: ignore[operator]
    image = torch.randn(2, 1, 16, 16)
    said = moved(one, three)
    assert torch.allclose(three.dense(image.expand(-1, 3, -1, -1)), one.dense(image), atol=1e-5)
    assert said == ["first layer of 1 channels for 3 channels"]


@pytest.mark.parametrize("build", [vit, residual])
def test_slices_keep_their_own_weights_when_sequences_are_added(build: object) -> None:
    one, two = build(3), build(6)  # type: ignore[operator]
    slices = torch.randn(2, 3, 16, 16)  # three different slices of one sequence
    moved(one, two, Input((16, 16), 3), Input((16, 16), 3))
    assert torch.allclose(two.dense(slices.repeat(1, 2, 1, 1)), one.dense(slices), atol=1e-5)


def test_sequences_keep_their_own_weights_when_slices_are_added() -> None:
    weight = torch.randn(2, 2, 3, 3)
    wide = resliced(weight, 6, before=1, after=3)
    assert torch.allclose(wide.unflatten(1, (2, 3)).sum(dim=2), weight, atol=1e-6)


def test_learned_positions_are_interpolated_for_another_grid() -> None:
    small, large = (vit(1, positions="learned", position_grid=grid) for grid in ((4, 4), (6, 5)))
    said = moved(small, large)
    wanted = resized_positions(small.position_table, (4, 4), (6, 5))  # type: ignore[arg-type]
    assert large.position_table.equal(wanted)  # type: ignore[union-attr]
    assert said == ["learned positions of 4 x 4 patches for 6 x 5"]


def test_positions_of_a_network_of_monai_are_interpolated() -> None:
    small, large = monai_vit(16), monai_vit(24)
    assert moved(small, large) == ["learned positions of 2 x 2 patches for 3 x 3"]
    assert large.dense(torch.randn(1, 1, 24, 24)).shape == (1, 12, 3, 3)


@pytest.mark.parametrize("positions", ["sincos", "rotary", "both"])
def test_computed_positions_take_any_crop_and_say_so(positions: str) -> None:
    found, wanted = vit(1, positions=positions), vit(1, positions=positions)
    said = moved(found, wanted, Input((16, 16)), Input((24, 16)))
    assert said == [f"{positions} positions computed for 6 x 4 patches, pretrained with 4 x 4"]
    assert wanted(torch.randn(1, 1, 24, 16)).shape == (1, 24, 16)


def test_nothing_is_said_where_nothing_is_adapted() -> None:
    assert moved(vit(1), vit(1)) == []


def refused(found: Encoder, wanted: Encoder) -> str:
    with pytest.raises(ConfigError) as error:
        check_alike(found.architecture(), wanted.architecture())
    return str(error.value)


def test_every_other_difference_is_refused_by_its_name() -> None:
    assert "differs from the bundle's in depth 2 (bundle: 1)" in refused(vit(1), ViT((4, 4), width=16, depth=2, heads=2))
    assert "layer_scale 0.1 (bundle: its default)" in refused(vit(1), vit(3, layer_scale=0.1))
    assert "positions learned" in refused(vit(1), vit(1, positions="learned", position_grid=(4, 4)))
    assert "ResidualEncoder" in refused(vit(1), residual(1))


def test_what_is_dropped_in_training_may_differ() -> None:
    check_alike(vit(1).architecture(), vit(1, drop_path=0.1).architecture())


def test_a_weight_that_cannot_be_adapted_is_named() -> None:
    found, wanted = vit(1), vit(1)
    weights: dict[str, Tensor] = {**found.state_dict(), "norm.weight": torch.zeros(7)}
    with pytest.raises(ConfigError, match=r"norm\.weight has shape"):
        fitted(weights, found.architecture(), wanted, before=CROP, after=CROP)
