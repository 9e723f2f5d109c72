from dataclasses import replace
from typing import Any

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.patch_decoder import DecoderKind
from medssl.models.patches import patchify
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE, hidden_error, kept_sequences, normalise
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, MaskKind
from medssl.views.streams import Streams

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def streams(count: int = 2) -> Streams:
    return Streams.of(0, range(count))


def mae(*, normalise_patches: bool = True, dims: int = 2, channels: int = 1, **options: Any) -> MAE:
    torch.manual_seed(0)
    encoder = ViT((4,) * dims, in_channels=channels, width=24, depth=1, heads=2)
    return MAE(encoder, decoder_width=16, decoder_depth=1, normalise_patches=normalise_patches, views=STILL, **options)


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


@pytest.mark.parametrize("decoder", ["self", "cross"])
@pytest.mark.parametrize("kind", ["random", "block", "hierarchical"])
def test_hidden_voxels_never_influence_the_prediction(decoder: DecoderKind, kind: MaskKind) -> None:
    objective = mae(decoder=decoder, masking=Masking(0.6, kind, 2))
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    mask = objective.mask(images, streams())
    objective.predict(images, mask).square().sum().backward()
    assert images.grad is not None
    gradient = patchify(images.grad, (4, 4)).abs().sum(dim=2)
    assert gradient.gather(1, mask.hidden).eq(0).all()
    assert gradient.gather(1, mask.visible).gt(0).all()


def test_the_share_that_is_decoded_is_exact_and_part_of_what_is_hidden() -> None:
    objective, images = mae(decoded=0.5), torch.randn(3, 1, 16, 16)
    mask = objective.mask(images, streams(3))
    part, _ = objective.part(mask, None, streams(3))
    assert part.hidden.shape == (3, 6)
    assert part.visible.equal(mask.visible)
    for row in range(3):
        assert set(part.hidden[row].tolist()) < set(mask.hidden[row].tolist())


def test_patches_without_body_are_decoded_last() -> None:
    objective, images = mae(decoded=0.25), torch.randn(4, 1, 16, 16)
    mask = objective.mask(images, streams(4))
    weight = torch.zeros(4, 12, 16, dtype=torch.bool)
    weight[:, 3, 5] = weight[:, 7, 0] = weight[:, 8] = True
    part, kept = objective.part(mask, weight, streams(4))
    assert part.hidden.equal(mask.hidden[:, [3, 7, 8]])
    assert kept is not None
    assert kept.equal(weight[:, [3, 7, 8]])


def test_a_share_of_one_and_all_in_several_shares_agree_across() -> None:
    objective, images = mae(decoder="cross"), torch.randn(2, 1, 16, 16)
    mask = objective.mask(images, streams())
    whole = objective.predict(images, mask)
    halves = [objective.predict(images, replace(mask, hidden=half)) for half in mask.hidden.chunk(2, dim=1)]
    torch.testing.assert_close(torch.cat(halves, dim=1), whole)


def test_a_missing_sequence_has_no_loss() -> None:
    objective, images = mae(channels=2), torch.randn(2, 2, 16, 16)
    batch = replace(Batch.of(images, streams()), present=torch.tensor([[[True, False]], [[True, True]]]))
    mask = objective.mask(images, streams())
    weight = objective.weight(batch.inside(0), mask)
    target = images.clone().requires_grad_()
    hidden_error(objective.predict(images, mask), objective.target(target, mask, weight), weight).backward()
    assert target.grad is not None
    assert target.grad[0, 1].eq(0).all()
    assert target.grad[0, 0].ne(0).any()
    assert target.grad[1, 1].ne(0).any()


def test_without_any_body_the_loss_is_0() -> None:
    objective, images = mae(), torch.randn(2, 1, 8, 8)
    batch = replace(Batch.of(images, streams()), level=torch.full((2, 1, 1), 1e6))
    assert objective(batch).total == 0


def test_normalisation_leaves_out_what_does_not_count() -> None:
    patches, weight = torch.randn(2, 3, 50) * 7 + 3, torch.rand(2, 3, 50) < 0.5
    found = normalise(torch.where(weight, patches, -1000.0), weight)
    for sample, row in ((sample, row) for sample in range(2) for row in range(3)):
        where = weight[sample, row]
        values = patches[sample, row, where]
        torch.testing.assert_close(found[sample, row, where], (values - values.mean()) / (values.var() + 1e-6).sqrt())


def test_a_weight_of_one_everywhere_is_no_weight() -> None:
    patches = torch.randn(2, 3, 50)
    torch.testing.assert_close(normalise(patches, torch.ones_like(patches)), normalise(patches))


def test_dropped_sequences_are_present_ones_and_one_always_stays() -> None:
    present = torch.tensor([[True, True, False, False, True, True]] * 200)
    kept = kept_sequences(present, 0.7, 2, streams=streams(200))
    assert kept[:, ::2].equal(kept[:, 1::2])  # both channels of a sequence
    there = (kept & present)[:, [0, 4]].sum(dim=1)
    assert set(there.tolist()) == {1, 2}
    assert 0.01 < (there == 2).float().mean() < 0.2  # 0.09 expected


def test_a_dropped_sequence_is_hidden_from_the_encoder_and_asked_for() -> None:
    objective, images = mae(channels=2, channel_drop=0.9, normalise_patches=False), torch.randn(8, 2, 16, 16)
    batch = Batch.of(images, streams(8))
    seen = objective.seen(images, replace(batch, streams=streams(8)))
    dropped = seen.flatten(2).eq(0).all(dim=2)
    assert dropped.any()
    assert (~dropped).any(dim=1).all()
    target = objective.target(images, objective.mask(images, streams(8)))
    assert target.unflatten(2, (-1, 2)).abs().sum(dim=(1, 2)).gt(0).all()  # of both sequences


@pytest.mark.parametrize("options", [{"decoded": 0.0}, {"decoded": 1.1}, {"channel_drop": 1.0}])
def test_a_share_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="decoded must lie in"):
        mae(**options)


def test_a_context_that_does_not_divide_the_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="context must divide the 3 channels"):
        mae(channels=3, context=2)


def test_the_parts_of_a_batch_give_a_masked_autoencoder_the_gradients_of_the_whole_where_every_voxel_counts() -> None:
    torch.manual_seed(0)
    method, images = MAE(ViT((4, 4), width=16, depth=1, heads=2)), torch.randn(4, 1, 16, 16)
    whole, parts = [range(4)], [range(2), range(2, 4)]
    found = []
    for batches in (whole, parts):
        method.zero_grad()
        for numbers in batches:
            batch = Batch.of(images[numbers.start : numbers.stop], Streams.of(3, numbers))
            (method(batch).total / len(batches)).backward()
        found.append([parameter.grad.clone() for parameter in method.parameters() if parameter.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
