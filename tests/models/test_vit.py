import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.blocks import Block, Branch, SwiGLU
from medssl.models.patches import axial_rotation, patchify, rotate, sincos_positions
from medssl.models.vit import ViT
from medssl.models.vit_sizes import primus, sized_vit

VARIANTS = [
    {},
    {"positions": "rotary"},
    {"positions": "both", "registers": 3, "mlp": "swiglu", "layer_scale": 0.1},
    {"positions": "learned", "position_grid": (2, 2), "qkv_bias": False, "mlp_width": 40, "norm_eps": 1e-6},
]


def small(**options: object) -> ViT:
    return ViT((4, 4), width=24, depth=2, heads=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("patch", "shape"), [((4, 4), (2, 1, 16, 8)), ((4, 4, 2), (2, 1, 8, 8, 4))])
def test_one_token_a_patch_in_2d_and_3d(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert ViT(patch, width=24, depth=1, heads=2)(torch.randn(shape)).shape == (2, 8, 24)


@pytest.mark.parametrize("options", VARIANTS)
def test_hidden_patches_do_not_reach_the_encoder(options: dict[str, object]) -> None:
    encoder = small(**options)
    images, visible = torch.randn(1, 1, 8, 8), torch.tensor([[0, 3]])
    changed = images.clone()
    changed[:, :, :4, 4:] += 100  # patch 1
    assert encoder(images, visible).equal(encoder(changed, visible))


@pytest.mark.parametrize("options", VARIANTS)
def test_seeing_all_patches_equals_seeing_them_as_visible(options: dict[str, object]) -> None:
    encoder, images = small(**options), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(encoder(images), encoder(images, torch.arange(4).expand(2, 4)))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads must divide width"):
        ViT((4, 4), width=10, heads=3)


def plain_vit(weights: dict[str, Tensor], images: Tensor, heads: int) -> Tensor:
    """The first ViT of medssl, written out."""
    tokens = F.linear(patchify(images, (4, 4)), weights["embed.weight"], weights["embed.bias"]) + sincos_positions((2, 2), 24)
    for n in range(2):
        w = {name.removeprefix(f"blocks.{n}."): tensor for name, tensor in weights.items() if name.startswith(f"blocks.{n}.")}
        normed = F.layer_norm(tokens, (24,), w["norm_attention.weight"], w["norm_attention.bias"])
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in F.linear(normed, w["qkv.weight"], w["qkv.bias"]).chunk(3, 2))
        attended = ((q @ k.transpose(2, 3) * (24 / heads) ** -0.5).softmax(dim=3) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(attended, w["project.weight"], w["project.bias"])
        normed = F.layer_norm(tokens, (24,), w["norm_mlp.weight"], w["norm_mlp.bias"])
        inside = F.gelu(F.linear(normed, w["mlp.0.weight"], w["mlp.0.bias"]))
        tokens = tokens + F.linear(inside, w["mlp.2.weight"], w["mlp.2.bias"])
    return F.layer_norm(tokens, (24,), weights["norm.weight"], weights["norm.bias"])


def test_older_bundles_load_and_mean_what_they_meant() -> None:
    recorded = {"patch": [4, 4], "in_channels": 1, "width": 24, "depth": 2, "heads": 2}
    encoder = Architecture("medssl.models.vit.ViT", recorded).build()
    assert isinstance(encoder, ViT)
    assert encoder.architecture().init_args == recorded
    parts = ("norm_attention", "qkv", "project", "norm_mlp", "mlp.0", "mlp.2")
    layers = ["embed", *(f"blocks.{n}.{part}" for n in range(2) for part in parts), "norm"]
    assert list(encoder.state_dict()) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(encoder(images), plain_vit(encoder.state_dict(), images, heads=2))


@pytest.mark.parametrize("options", VARIANTS)
def test_options_that_were_changed_are_recorded_and_no_others(options: dict[str, object]) -> None:
    recorded = small(**options).architecture().init_args
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in list(recorded.items())[5:]} == options


def test_turned_queries_and_keys_meet_by_their_distance_alone() -> None:
    query, key = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    grid = (4, 5, 3)
    turned = [rotate(part.expand(1, 1, 60, 12), axial_rotation(grid, 12))[0, 0].view(*grid, 12) for part in (query, key)]
    first = turned[0][2, 3, 1] @ turned[1][1, 1, 2]
    torch.testing.assert_close(turned[0][3, 4, 0] @ turned[1][2, 2, 1], first)
    assert not turned[0][3, 4, 0].allclose(turned[0][2, 3, 1])
    torch.testing.assert_close(turned[0].norm(dim=3), query.norm().expand(grid))


def test_rotary_positions_tell_where_a_patch_is() -> None:
    encoder, images = small(positions="rotary"), torch.randn(1, 1, 8, 8)
    moved = torch.cat([images[:, :, 4:], images[:, :, :4]], dim=2)
    assert not encoder(images)[:, :2].allclose(encoder(moved)[:, 2:], atol=1e-4)


def test_a_learned_table_serves_other_grids() -> None:
    encoder = small(positions="learned", position_grid=(2, 2))
    assert encoder(torch.randn(1, 1, 16, 8)).shape == (1, 8, 24)
    torch.testing.assert_close(encoder.added_positions((1, 1)), encoder.position_table.mean(dim=0, keepdim=True))  # type: ignore[union-attr]


def test_the_mask_token_stands_for_hidden_patches() -> None:
    images, hidden = torch.randn(1, 1, 8, 8), torch.tensor([[[True, False], [False, False]]])
    encoder = small(mask_token=True)
    before = encoder.dense(images, hidden)
    with torch.no_grad():
        encoder.mask_token.normal_()  # type: ignore[union-attr]
    assert not encoder.dense(images, hidden).allclose(before)
    without = small()
    tokens = without.tokens(images, seen=~hidden.flatten(1)[:, :, None])
    assert tokens[:, 0].equal(sincos_positions((2, 2), 24)[:1])


def test_a_mask_finer_than_the_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="finer than"):
        small().dense(torch.zeros(1, 1, 8, 8), torch.zeros(1, 4, 4, dtype=torch.bool))


def test_a_gated_mlp_is_its_formula() -> None:
    mlp, tokens = SwiGLU(6, 10), torch.randn(2, 3, 6)
    gate = tokens @ mlp.gate.weight.T + mlp.gate.bias
    torch.testing.assert_close(mlp(tokens), mlp.out(gate * gate.sigmoid() * mlp.value(tokens)))


def test_a_branch_drops_whole_samples_in_training_and_keeps_the_mean() -> None:
    branch, update = Branch(3, None, 0.25), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    dropped = branch(update)
    assert dropped.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert branch.eval()(update).equal(update)


def test_stochastic_depth_rises_with_depth_and_follows_the_seed() -> None:
    encoder, images = ViT((4, 4), width=24, depth=3, heads=2, drop_path=0.4), torch.randn(4, 1, 8, 8)
    assert [block.attention_branch.drop_path for block in encoder.blocks] == [0, 0.2, 0.4]  # type: ignore[union-attr]
    torch.manual_seed(1)
    first = encoder(images)
    torch.manual_seed(1)
    assert encoder(images).equal(first)
    assert not encoder(images).equal(first)


def test_a_block_with_a_layer_scale_of_zero_changes_nothing() -> None:
    tokens = torch.randn(2, 5, 8)
    assert Block(8, 2, layer_scale=0.0)(tokens).equal(tokens)


def test_checkpointing_changes_no_gradient_and_is_no_part_of_the_architecture() -> None:
    images, gradients = torch.randn(3, 1, 8, 8), []
    plain = small(drop_path=0.3, positions="both")
    saving = small(drop_path=0.3, positions="both", checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    assert saving.architecture() == plain.architecture()
    for encoder in (plain, saving):
        torch.manual_seed(2)
        encoder(images, torch.tensor([[0, 2]] * 3)).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "learned"}, "need position_grid"),
        ({"positions": "learned", "position_grid": (2,)}, "one number per axis"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_rotary_positions_need_wide_heads() -> None:
    with pytest.raises(ConfigError, match="6 channels a head"):
        ViT((4, 4, 4), width=8, heads=2, positions="rotary")


@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.4), ("small", 21.4), ("base", 85.3), ("large", 302.6)])
def test_a_sized_vit_has_the_parameters_of_its_paper(size: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = sized_vit(size, (16, 16))  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_primus_has_the_parts_of_its_paper() -> None:
    with torch.device("meta"):
        encoder = primus("M")
    assert (encoder.width, encoder.depth, encoder.heads, encoder.patch) == (864, 16, 12, (8, 8, 8))
    assert encoder.architecture().init_args["positions"] == "both"
    block = encoder.blocks[-1]
    assert isinstance(block, Block)
    assert isinstance(block.mlp, SwiGLU)
    assert (block.mlp_branch.drop_path, block.mlp.gate.out_features) == (0.2, 2304)
