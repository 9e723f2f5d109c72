from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.encoder import Encoder, visible_cells
from medssl.models.patches import unpatchify
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT
from medssl.objectives.simmim import SimMIM
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, MaskKind
from medssl.views.streams import Streams

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


class OneConvolution(Encoder):
    """The smallest encoder: one convolution of what is visible."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.width, self.stride = dims, 1, 6, (4,) * dims
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 6, 4, stride=4)

    def architecture(self) -> Architecture:
        return Architecture.of(self)

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        return [self.conv(images if hidden is None else images * visible_cells(hidden, images.shape[2:]))]


def streams(count: int = 2) -> Streams:
    return Streams.of(0, range(count))


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT((4, 4), width=24, depth=1, heads=2, mask_token=True)


def mask_of(objective: SimMIM, images: Tensor) -> Tensor:
    """The hidden voxels (B, 1, *S) that the objective draws for these crops."""
    source = streams(len(images))
    augment(images, STILL, streams=source)  # the views are drawn before the mask
    hidden = objective.hidden(images, source)[:, None]
    for axis in range(2, images.ndim):
        hidden = hidden.repeat_interleave(images.shape[axis] // hidden.shape[axis], dim=axis)
    return hidden


@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_a_loop_over_hidden_voxels(dims: int) -> None:
    objective, images = SimMIM(OneConvolution(dims), views=STILL), torch.randn(2, 1, *(8,) * dims)
    hidden = mask_of(objective, images)
    everywhere = objective.head(objective.encoder.pyramid(images * ~hidden)[0].flatten(2).transpose(1, 2))
    voxels = unpatchify(everywhere, (4,) * dims, (2,) * dims)
    errors = [(voxels[place] - images[place]).abs() for place in map(tuple, hidden.nonzero().tolist())]
    torch.testing.assert_close(objective(Batch.of(images, streams())).total, torch.stack(errors).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["random", "block", "hierarchical"])
def test_hidden_voxels_never_influence_the_prediction(kind: MaskKind) -> None:
    objective = SimMIM(vit(), masking=Masking(0.6, kind, 2), block=(8, 8), views=STILL)
    images = torch.randn(2, 1, 32, 32, requires_grad=True)
    objective.predict(images, objective.hidden(images, streams())).square().sum().backward()
    source = streams()
    hidden = objective.hidden(images, source).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, None]
    assert images.grad is not None
    assert images.grad[hidden].eq(0).all()
    assert images.grad[~hidden].ne(0).any()


def test_visible_voxels_are_no_target() -> None:
    objective, images = SimMIM(OneConvolution(), views=STILL), torch.randn(2, 1, 8, 8)
    objective.encoder.conv.weight.data.zero_()  # what is seen changes nothing, so that only targets can
    hidden, batch = mask_of(objective, images), Batch.of(images, streams())
    changed = torch.where(hidden, images, images + 3)
    assert objective(batch).total == objective(Batch.of(changed, streams())).total
    assert objective(Batch.of(images + hidden, streams())).total != objective(Batch.of(images, streams())).total


def test_all_voxels_of_a_block_of_several_cells_are_asked_for() -> None:
    objective, images = SimMIM(vit(), masking=Masking(0.5), block=(8, 8), views=STILL), torch.randn(1, 1, 16, 16)
    hidden = objective.hidden(images, streams(1))
    assert hidden.shape == (1, 2, 2)
    assert objective.predict(images, hidden).shape == (1, 8, 16)  # two blocks of four cells of 16 voxels


def test_background_and_missing_sequences_do_not_count() -> None:
    objective, images = SimMIM(OneConvolution(), views=STILL), torch.randn(2, 1, 16, 16)
    batch = replace(Batch.of(images, streams()), present=torch.tensor([[[True]], [[False]]]))
    alone = objective(Batch.of(images[:1], streams(1))).total
    torch.testing.assert_close(objective(batch).total, alone)


def test_the_same_streams_give_the_same_loss() -> None:
    objective, images = SimMIM(vit()), torch.randn(2, 1, 16, 16)
    first, again = (objective(Batch.of(images, streams())).total for _ in range(2))
    assert first.equal(again)


def test_gradients_reach_the_encoder_and_its_mask_token() -> None:
    objective = SimMIM(vit(), views=STILL)
    objective(Batch.of(torch.randn(2, 1, 16, 16), streams())).total.backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in (objective.encoder.mask_token, objective.encoder.embed.weight)
    )


def test_a_residual_encoder_learns() -> None:
    encoder = ResidualEncoder(spatial_dims=2, stage_widths=(4, 6), stage_blocks=(1, 1))
    objective = SimMIM(encoder, block=(4, 4))
    objective(Batch.of(torch.randn(2, 1, 16, 16), streams())).total.backward()
    learning = [parameter.grad is not None and bool(parameter.grad.ne(0).any()) for parameter in encoder.parameters()]
    assert sum(learning) > len(learning) / 2
    assert all(bool(parameter.grad.ne(0).any()) for parameter in objective.head.parameters() if parameter.grad is not None)


def objective_is_finite(objective: SimMIM) -> bool:
    return bool(objective(Batch.of(torch.randn(2, 1, 16, 16), streams())).total.isfinite())


def test_the_picture_keeps_visible_voxels() -> None:
    objective, images = SimMIM(vit(), views=STILL), torch.randn(2, 1, 16, 16)
    shown, masked, filled = objective.picture(Batch.of(images, streams()))
    hidden = objective.hidden(images, streams()).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)[:, None]
    assert shown.equal(images)
    for stage in (masked, filled):
        assert stage[~hidden].equal(images[~hidden])
    assert masked[hidden].eq(images.min()).all()


def test_a_block_that_is_no_multiple_of_the_stride_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of the encoder's stride"):
        SimMIM(vit(), block=(6, 8))
