import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.blocks import Block, CrossBlock
from medssl.models.patch_decoder import DecoderKind, PatchDecoder
from medssl.models.patches import patches_at, patchify, sincos_positions


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_last_tokens_alone_are_those_of_the_whole_block(qkv_bias: bool) -> None:
    block, tokens = Block(8, 2, qkv_bias=qkv_bias, layer_scale=0.5), torch.randn(2, 7, 8)
    torch.testing.assert_close(block(tokens, last=3), block(tokens)[:, -3:])


def test_the_last_tokens_alone_give_the_gradients_of_the_whole_block() -> None:
    block, tokens = Block(8, 2), torch.randn(2, 7, 8)
    found, expected = (
        torch.autograd.grad(output.square().sum(), list(block.parameters())) for output in (block(tokens, last=3), block(tokens)[:, -3:])
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_cross_attention_equals_a_loop_over_heads_and_queries() -> None:
    block, queries, known = CrossBlock(6, 2), torch.randn(1, 2, 6), torch.randn(1, 4, 6)
    query, (key, value) = block.query(block.norm_query(queries))[0], block.key_value(block.norm_known(known))[0].split(6, dim=1)
    attended = torch.empty(2, 6)
    for head in (slice(0, 3), slice(3, 6)):
        for row in range(2):
            share = torch.stack([query[row, head] @ key[place, head] / 3**0.5 for place in range(4)]).softmax(dim=0)
            attended[row, head] = sum(share[place] * value[place, head] for place in range(4))
    updated = queries + block.project(attended)
    torch.testing.assert_close(block(queries, known), updated + block.mlp(block.norm_mlp(updated)))


def asked_for(kind: DecoderKind, asked: list[int]) -> torch.Tensor:
    torch.manual_seed(0)
    decoder, features = PatchDecoder(6, 5, width=8, heads=2, depth=2, kind=kind), torch.randn(1, 3, 6)
    return decoder(features, torch.tensor([[0, 4, 5]]), torch.tensor([asked]), (3, 3))


def test_across_what_else_is_asked_for_changes_nothing() -> None:
    torch.testing.assert_close(asked_for("cross", [1, 2, 8])[:, :2], asked_for("cross", [1, 2]))


def test_among_all_tokens_what_else_is_asked_for_counts() -> None:
    assert not torch.allclose(asked_for("self", [1, 2, 8])[:, :2], asked_for("self", [1, 2]))


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_predictions_have_the_size_of_patches(kind: DecoderKind) -> None:
    assert asked_for(kind, [1, 2, 8, 3]).shape == (1, 4, 5)


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 4)])
def test_patches_at_places_are_those_of_all_patches(shape: tuple[int, ...]) -> None:
    images, places = torch.randn(2, 3, *shape), torch.tensor([[5, 0, 3], [1, 1, 2]])
    patches = patchify(images, (2,) * len(shape))
    assert patches_at(images, (2,) * len(shape), places).equal(torch.stack([patches[row, places[row]] for row in range(2)]))


def test_positions_first_asked_for_in_inference_can_be_trained_with() -> None:
    with torch.inference_mode():
        sincos_positions((3, 7), 16)
    weight = torch.ones(16, requires_grad=True)
    (weight * sincos_positions((3, 7), 16)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("wrong", [{"heads": 5}, {"depth": 0}, {"width": 0}])
def test_a_decoder_that_cannot_be_built_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be >= 1, and heads divide the width"):
        PatchDecoder(16, 8, **wrong)
