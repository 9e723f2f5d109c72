import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.vit import ViT


@pytest.mark.parametrize(("patch", "shape"), [((4, 4), (2, 1, 16, 8)), ((4, 4, 2), (2, 1, 8, 8, 4))])
def test_one_token_a_patch_in_2d_and_3d(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert ViT(patch, width=24, depth=1, heads=2)(torch.randn(shape)).shape == (2, 8, 24)


def test_hidden_patches_do_not_reach_the_encoder() -> None:
    encoder = ViT((4, 4), width=24, depth=2, heads=2)
    images, visible = torch.randn(1, 1, 8, 8), torch.tensor([[0, 3]])
    changed = images.clone()
    changed[:, :, :4, 4:] += 100  # patch 1
    assert encoder(images, visible).equal(encoder(changed, visible))


def test_seeing_all_patches_equals_seeing_them_as_visible() -> None:
    encoder, images = ViT((4, 4), width=24, depth=2, heads=2), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(encoder(images), encoder(images, torch.arange(4).expand(2, 4)))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads must divide width"):
        ViT((4, 4), width=10, heads=3)
