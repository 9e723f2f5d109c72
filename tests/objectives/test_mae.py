from dataclasses import replace

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.patches import patchify
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE, hidden_error, normalise
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.streams import Streams

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def streams(count: int = 2) -> Streams:
    return Streams.of(0, range(count))


def mae(*, normalise_patches: bool = True, dims: int = 2) -> MAE:
    encoder = ViT((4,) * dims, width=24, depth=1, heads=2)
    return MAE(encoder, decoder_width=16, decoder_depth=1, normalise_patches=normalise_patches, views=STILL)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_a_loop_over_hidden_patches(dims: int) -> None:
    objective, images = mae(dims=dims), torch.randn(2, 1, *(8,) * dims)
    source = streams()
    augment(images, STILL, streams=source)  # the views are drawn before the mask
    mask = objective.mask(images, source)
    prediction, patches = objective.predict(images, mask), patchify(images, objective.encoder.patch)
    errors = []
    for sample in range(2):
        for place, patch in enumerate(mask.hidden[sample]):
            truth = patches[sample, patch]
            truth = (truth - truth.mean()) / (truth.var() + 1e-6).sqrt()
            errors.append((prediction[sample, place] - truth).square().mean())
    torch.testing.assert_close(objective(Batch.of(images, streams())).total, torch.stack(errors).mean(), atol=1e-5, rtol=1e-5)


def test_the_target_has_no_visible_patch() -> None:
    objective, images = mae(normalise_patches=False), torch.randn(1, 1, 8, 8)
    mask = objective.mask(images, streams(1))
    changed = images.clone().requires_grad_()
    hidden_error(objective.predict(images, mask), objective.target(changed, mask)).backward()
    assert changed.grad is not None
    gradient = patchify(changed.grad, (4, 4))[0].abs().sum(dim=1)
    assert gradient[mask.visible[0]].eq(0).all()
    assert gradient[mask.hidden[0]].gt(0).all()


def test_the_same_seed_gives_the_same_loss() -> None:
    objective, images = mae(), torch.randn(2, 1, 8, 8)
    first, again = (objective(Batch.of(images, streams())).total for _ in range(2))
    assert first.equal(again)


def test_background_does_not_count() -> None:
    objective, images = mae(normalise_patches=False), torch.randn(2, 1, 8, 8)
    images[:, :, :4] = -5
    batch = replace(Batch.of(images, streams()), level=torch.full((2, 1, 1), -5.0))
    source = streams()
    augment(images, STILL, streams=source)
    mask = objective.mask(images, source)
    errors = (objective.predict(images, mask) - objective.target(images, mask)).square()
    body = (mask.hidden >= 2)[:, :, None].expand_as(errors)  # patches 0 and 1 are the upper half
    torch.testing.assert_close(objective(batch).total, errors[body].mean(), atol=1e-5, rtol=1e-5)


def test_a_normalised_patch_has_mean_0_and_deviation_1() -> None:
    patches = normalise(torch.randn(2, 3, 50) * 7 + 3)
    torch.testing.assert_close(patches.mean(dim=2), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.std(dim=2), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_the_picture_keeps_visible_patches_and_shows_three_stages() -> None:
    objective, images = mae(), torch.randn(2, 1, 8, 8)
    shown, masked, filled = objective.picture(Batch.of(images, streams()))
    visible = objective.mask(images, streams()).visible[0]
    for stage in (masked, filled):
        assert patchify(stage, (4, 4))[0, visible].equal(patchify(shown, (4, 4))[0, visible])


def test_a_wrong_ratio_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask_ratio must lie between 0 and 1, got 1.5"):
        MAE(ViT((4, 4)), mask_ratio=1.5)
