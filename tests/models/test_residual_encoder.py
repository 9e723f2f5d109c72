from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import InstanceNorm2d, Module

from medssl.errors import ConfigError
from medssl.models.convolutions import ConvNorm, ResidualBlock, sparse_instance_norm
from medssl.models.encoder import visible_cells
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.unet import PyramidUNet
from medssl.training.planning.footprint import footprint

SMALL = {"spatial_dims": 2, "stage_widths": (4, 6, 8), "stage_blocks": (1, 2, 1)}


def checkerboard(batch: int = 1) -> Tensor:
    return torch.tensor([[[True, False, True, False], [False, True, False, True]] * 2]).expand(batch, 4, 4)


def test_normalisation_sees_visible_cells_alone() -> None:
    features, visible = torch.randn(2, 3, 5, 4) * 3 + 1, (torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    weight, bias = torch.randn(3), torch.randn(3)
    expected = torch.zeros_like(features)
    for n in range(2):
        for c in range(3):
            where = visible[n, 0].bool()
            values = features[n, c][where]
            expected[n, c][where] = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt() * weight[c] + bias[c]
    torch.testing.assert_close(sparse_instance_norm(features, visible, weight, bias, 1e-5), expected)


def test_normalisation_of_all_cells_is_instance_normalisation() -> None:
    features, norm = torch.randn(2, 3, 5, 4), InstanceNorm2d(3, affine=True)
    torch.testing.assert_close(sparse_instance_norm(features, torch.ones(2, 1, 5, 4), norm.weight, norm.bias, norm.eps), norm(features))


def test_every_map_inside_the_encoder_is_zero_where_all_is_hidden() -> None:
    encoder, hidden, seen = ResidualEncoder(**SMALL), checkerboard(), []

    def look(module: Module, arguments: object, output: Tensor) -> None:
        del module, arguments
        seen.append(float((output.detach() * (1 - visible_cells(hidden, output.shape[2:]))).abs().max()))

    for module in encoder.modules():
        if isinstance(module, ConvNorm | ResidualBlock):
            module.register_forward_hook(look)
    encoder.pyramid(torch.randn(1, 1, 32, 32), hidden)
    assert len(seen) > 10
    assert max(seen) == 0


def test_the_pattern_of_the_mask_survives_every_scale() -> None:
    maps = ResidualEncoder(**SMALL).pyramid(torch.randn(1, 1, 32, 32), checkerboard())
    for features in maps:
        assert features.abs().sum(dim=1, keepdim=True).gt(0).float().equal(visible_cells(checkerboard(), features.shape[2:]))


def test_two_masks_can_be_in_flight_at_once() -> None:
    encoder, images = ResidualEncoder(**SMALL), torch.randn(1, 1, 32, 32)
    alone = encoder.dense(images, checkerboard())
    inner: list[Tensor] = []
    block = next(module for module in encoder.modules() if isinstance(module, ResidualBlock))

    def interrupt(*_: object) -> None:
        if not inner:
            inner.append(torch.zeros(()))
            inner.append(encoder.dense(images, ~checkerboard()))

    block.register_forward_hook(interrupt)
    assert encoder.dense(images, checkerboard()).equal(alone)
    assert not inner[1].equal(alone)


def test_a_block_is_its_formula() -> None:
    block, images = ResidualBlock(3, 4, (3, 3), (2, 2)), torch.randn(1, 3, 8, 8)
    main = block.second.norm(block.second.conv(torch.nn.functional.leaky_relu(block.first.norm(block.first.conv(images)), 0.01)))
    skip = block.skip.norm(block.skip.conv(torch.nn.functional.avg_pool2d(images, 2)))  # type: ignore[union-attr]
    torch.testing.assert_close(block(images), torch.nn.functional.leaky_relu(main + skip, 0.01))


def test_the_defaults_are_the_stages_of_resenc_l() -> None:
    with torch.device("meta"):
        encoder = ResidualEncoder()
    assert encoder.widths == (32, 64, 128, 256, 320, 320)
    assert encoder.stride == (32, 32, 32)
    assert [len(blocks) for blocks in encoder.stages] == [1, 3, 4, 6, 6, 6]  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "message"), [(30, "multiple of the encoder's stride"), (4, "one cell")])
def test_a_crop_that_does_not_fit_is_refused(size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResidualEncoder(**SMALL).pyramid(torch.zeros(1, 1, size, size))


@pytest.mark.parametrize(
    "change", [{"stage_blocks": (1, 2)}, {"stage_kernels": ((2, 2),) * 3}, {"stage_strides": ((1,),) * 3}, {"spatial_dims": 4}]
)
def test_stages_that_do_not_fit_each_other_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="stage|odd"):
        ResidualEncoder(**{**SMALL, **change})


def test_deep_supervision_gives_logits_at_every_scale_but_the_deepest() -> None:
    network = PyramidUNet(ResidualEncoder(**SMALL), classes=3, deep_supervision=True)
    images = torch.randn(2, 1, 16, 16)
    assert [tuple(logits.shape) for logits in network.scales(images)] == [(2, 3, 16, 16), (2, 3, 8, 8)]
    assert network.scales(images)[0].equal(network(images))


@pytest.mark.parametrize("masked", [False, True])
def test_checkpointing_changes_no_gradient_and_is_no_part_of_the_architecture(masked: bool) -> None:
    torch.manual_seed(0)
    plain, saving = ResidualEncoder(**SMALL), ResidualEncoder(**SMALL, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    images, hidden = torch.randn(2, 1, 32, 32), checkerboard(2) if masked else None
    gradients = []
    for encoder in (plain, saving):
        sum(features.square().sum() for features in encoder.pyramid(images, hidden)).backward()  # type: ignore[union-attr]
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    torch.testing.assert_close(*gradients)
    assert saving.architecture() == plain.architecture()


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    def network(saving: bool) -> PyramidUNet:
        return PyramidUNet(ResidualEncoder(**SMALL, checkpointing=saving))

    kept = [footprint(partial(network, saving), (64, 64)).sample for saving in (False, True)]
    assert kept[1] < 0.8 * kept[0]
