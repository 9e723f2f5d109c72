from dataclasses import replace

import pytest
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder, visible_cells
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT
from medssl.objectives.spark import SparK
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, MaskKind
from medssl.views.streams import Streams

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def streams(count: int = 2) -> Streams:
    return Streams.of(0, range(count))


def residual(dims: int = 2, channels: int = 1) -> ResidualEncoder:
    torch.manual_seed(0)
    return ResidualEncoder(spatial_dims=dims, in_channels=channels, stage_widths=(4, 6, 8), stage_blocks=(1, 1, 1))


def mask_of(objective: SparK, images: Tensor) -> Tensor:
    """The hidden blocks (B, *K) that the objective draws for these crops."""
    source = streams(len(images))
    augment(images, STILL, streams=source)  # the views are drawn before the mask
    return objective.hidden(images, source)


def spread(hidden: Tensor, images: Tensor) -> Tensor:
    """Hidden voxels (B, 1, *S)."""
    return ~visible_cells(hidden, images.shape[2:]).bool()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("normalised", [True, False])
def test_the_loss_equals_a_loop_over_hidden_blocks(dims: int, normalised: bool) -> None:
    objective = SparK(residual(dims), normalise_blocks=normalised, views=STILL)
    images = torch.randn(2, 1, *(16,) * (dims - 1), 8)
    hidden = mask_of(objective, images)
    prediction, errors = objective.predict(images, hidden), []
    for sample, *place in hidden.nonzero().tolist():
        block = (sample, 0, *(slice(4 * at, 4 * at + 4) for at in place))
        truth = images[block]
        if normalised:
            truth = (truth - truth.mean()) / (truth.var() + 1e-6).sqrt()
        errors.append((prediction[block] - truth).square().mean())
    torch.testing.assert_close(objective(Batch.of(images, streams())).total, torch.stack(errors).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["random", "block", "hierarchical"])
@pytest.mark.parametrize("block", [None, (8, 8)])
def test_hidden_voxels_never_influence_the_prediction(kind: MaskKind, block: tuple[int, int] | None) -> None:
    objective = SparK(residual(), masking=Masking(0.6, kind, 2), block=block, views=STILL)
    images = torch.randn(2, 1, 32, 32, requires_grad=True)
    hidden = objective.hidden(images, streams())
    objective.predict(images, hidden).square().sum().backward()
    assert images.grad is not None
    where = spread(hidden, images)
    assert images.grad[where].eq(0).all()
    assert images.grad[~where].ne(0).any()


def test_a_block_is_as_wide_as_the_stride() -> None:
    images = torch.randn(3, 1, 16, 16)
    hidden = SparK(residual(), masking=Masking(0.75)).hidden(images, streams(3))
    assert hidden.shape == (3, 4, 4)
    assert hidden.flatten(1).sum(dim=1).tolist() == [12, 12, 12]


def test_mask_tokens_stand_in_hidden_cells_of_every_scale() -> None:
    objective, images = SparK(residual(), views=STILL), torch.randn(2, 1, 16, 16)
    hidden, seen = mask_of(objective, images), []
    for project in objective.project:
        project.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    objective.predict(images, hidden)
    assert len(seen) == 3
    for features, token in zip(seen, objective.mask_tokens, strict=True):
        where = spread(hidden, features)[:, 0]
        assert features.movedim(1, -1)[where].eq(token).all()


def test_visible_voxels_are_no_target() -> None:
    objective, images = SparK(residual(), normalise_blocks=False, views=STILL), torch.randn(2, 1, 16, 16)
    where = spread(mask_of(objective, images), images)
    for parameter in objective.head.parameters():
        parameter.data.zero_()  # the prediction is 0, so that only targets can change the loss
    loss = objective(Batch.of(images, streams())).total
    torch.testing.assert_close(loss, images[where].square().mean())
    assert objective(Batch.of(torch.where(where, images, images + 3), streams())).total == loss


def test_a_missing_sequence_has_no_loss() -> None:
    objective, images = SparK(residual(channels=2), normalise_blocks=False, views=STILL), torch.randn(2, 2, 16, 16)
    for parameter in objective.head.parameters():
        parameter.data.zero_()
    where = spread(mask_of(objective, images), images)
    batch = replace(Batch.of(images, streams()), present=torch.tensor([[[True, False]], [[True, True]]]))
    counted = torch.cat([images[0, :1][where[0]], images[1, :1][where[1]], images[1, 1:][where[1]]])
    torch.testing.assert_close(objective(batch).total, counted.square().mean())


def test_background_counts_neither_in_the_loss_nor_in_what_blocks_are_normalised_by() -> None:
    objective, images = SparK(residual(), views=STILL), torch.randn(2, 1, 16, 16)
    images[..., ::3] = -50
    for parameter in objective.head.parameters():
        parameter.data.zero_()
    batch = replace(Batch.of(images, streams()), level=torch.full((2, 1, 1), -50.0))
    body = torch.cat([_normalised_body(images[sample, 0], place) for sample, *place in mask_of(objective, images).nonzero().tolist()])
    torch.testing.assert_close(objective(batch).total, body.square().mean(), atol=1e-5, rtol=1e-5)


def _normalised_body(image: Tensor, place: list[int]) -> Tensor:
    block = image[tuple(slice(4 * at, 4 * at + 4) for at in place)]
    values = block[block > -50]
    return (values - values.mean()) / (values.var() + 1e-6).sqrt()


def test_the_same_streams_give_the_same_loss() -> None:
    objective, images = SparK(residual()), torch.randn(2, 1, 16, 16)
    first, again = (objective(Batch.of(images, streams())).total for _ in range(2))
    assert first.equal(again)


def test_gradients_reach_every_parameter() -> None:
    objective = SparK(residual(), views=STILL)
    objective(Batch.of(torch.randn(2, 1, 16, 16), streams())).total.backward()
    assert [name for name, parameter in objective.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    "encoder",
    [
        ViT((4, 4), width=16, depth=1, heads=2),
        MonaiEncoder(
            "monai.networks.nets.SegResNet",
            {"spatial_dims": 2, "in_channels": 1, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
            crop=(16, 16),
            features="encode",
        ),
    ],
)
def test_other_encoders_will_do(encoder: Encoder) -> None:
    objective, images = SparK(encoder, block=(4, 4), views=STILL), torch.randn(2, 1, 16, 16)
    assert objective.predict(images, objective.hidden(images, streams())).shape == images.shape
    assert objective(Batch.of(images, streams())).total.isfinite()


def test_the_picture_keeps_visible_voxels() -> None:
    objective, images = SparK(residual(), views=STILL), torch.randn(2, 1, 16, 16)
    shown, masked, filled = objective.picture(Batch.of(images, streams()))
    where = spread(objective.hidden(images, streams()), images)
    assert shown.equal(images)
    for stage in (masked, filled):
        assert stage[~where].equal(images[~where])
    assert masked[where].eq(images.min()).all()


def test_a_block_of_other_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match="block takes 2 positive numbers"):
        SparK(residual(), block=(4, 4, 4))
