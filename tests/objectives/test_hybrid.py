"""The hybrid: each of its parts against a slow reference, what is skipped at weight 0, and what the teacher gets."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.encoder import TokenEncoder
from medssl.models.patches import patchify
from medssl.models.vit import ViT
from medssl.objectives.hybrid import Hybrid, Weights, dense_distance, huber_error
from medssl.objectives.mae import MAE
from medssl.views.augment import Augment
from medssl.views.batch import Batch
from medssl.views.streams import Streams

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
FLIPS = replace(STILL, flip=0.5)


def crops(batch: int = 3, dims: int = 2, *, channels: int = 1) -> Batch:
    """Pairs of crops of 8 voxels a side of a scan of noise, the second shifted by half a crop along the first axis."""
    scans = torch.randn(batch, channels, 12, *(8,) * (dims - 1), generator=torch.Generator().manual_seed(1))
    corner = torch.zeros(batch, 2, dims)
    corner[:, 1, 0] = 4
    images = torch.stack([scans[:, :, :8], scans[:, :, 4:]], dim=1)
    shape = (batch, 2, channels)
    level, present = torch.full(shape, float("-inf")), torch.ones(shape, dtype=torch.bool)
    return Batch(images, Streams.of(0, range(batch)), torch.arange(batch), corner, level, present)


def hybrid(weights: Weights | None = None, *, dims: int = 2, views: Augment = STILL, huber: float | None = 1.0) -> Hybrid:
    torch.manual_seed(0)
    encoder = ViT((2,) * dims, width=24, depth=1, heads=2)
    return Hybrid(
        encoder, weights=weights, views=views, huber=huber, decoder_width=16, decoder_depth=1, hidden=16, projection=8, temperature=0.5
    )


class Places(TokenEncoder):
    """An encoder without weights: the mean of a patch is its feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patch = self.stride = (2, 2)
        self.spatial_dims, self.in_channels, self.width = 2, channels, channels

    def architecture(self) -> Architecture:
        return Architecture.of(self, channels=self.in_channels)

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:  # noqa: ARG002
        return [F.avg_pool2d(images, 2)]

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        means = patchify(images, self.patch).unflatten(2, (-1, self.in_channels)).mean(dim=2)
        return means if visible is None else means.gather(1, visible[:, :, None].expand(-1, -1, self.in_channels))


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    loss = hybrid(Weights(2.0, 0.5, 0.1), views=FLIPS)(crops())
    expected = 2 * loss.terms["masked"] + 0.5 * loss.terms["dense"] + 0.1 * loss.terms["nt_xent"]
    torch.testing.assert_close(loss.total.detach(), expected)


def test_alone_and_squared_the_masked_part_is_that_of_mae_on_both_crops() -> None:
    objective, batch = hybrid(Weights(1, 0, 0), views=FLIPS, huber=None), crops()
    mae = MAE(objective.encoder, decoder_width=16, decoder_depth=1, views=FLIPS)
    mae.decoder = objective.decoder
    streams = Streams.of(0, range(3))
    losses = [mae(replace(batch, images=batch.images[:, place, None], streams=streams)).total for place in range(2)]
    torch.testing.assert_close(objective(batch).total, torch.stack(losses).mean())


def test_the_huber_error_equals_a_loop_over_values_that_count() -> None:
    prediction, target, weight = torch.randn(2, 3, 4) * 3, torch.randn(2, 3, 4), torch.rand(2, 3, 4) > 0.4
    errors = [abs(float(p) - float(t)) for p, t, w in zip(prediction.flatten(), target.flatten(), weight.flatten(), strict=True) if w]
    expected = sum(0.5 * error**2 if error <= 0.7 else 0.7 * (error - 0.35) for error in errors) / len(errors)
    assert float(huber_error(prediction, target, weight, delta=0.7)) == pytest.approx(expected, rel=1e-5)


def test_the_dense_distance_equals_a_loop_over_known_points() -> None:
    features, targets, known = torch.randn(2, 5, 4), torch.randn(2, 5, 4), torch.rand(2, 5) > 0.4
    expected = [
        1 - float(F.cosine_similarity(features[sample, point], targets[sample, point], dim=0))
        for sample in range(2)
        for point in range(5)
        if known[sample, point]
    ]
    assert float(dense_distance(features, targets, known)) == pytest.approx(sum(expected) / len(expected), abs=1e-5)


@pytest.mark.parametrize("views", [STILL, FLIPS])
def test_visible_patches_are_compared_with_the_same_tissue_in_the_other_view(views: Augment) -> None:
    objective = Hybrid(Places(5), weights=Weights(0, 1, 0), views=views, hidden=8)
    objective.dense_predictor = nn.Identity()
    batch = crops(8, channels=5)
    aligned = objective(batch).terms
    wrong = objective(replace(batch, streams=Streams.of(0, range(8)), corner=batch.corner.flip(1))).terms
    assert float(aligned["dense"]) == pytest.approx(0, abs=1e-5)
    assert float(wrong["dense"]) > 0.3
    assert 0.3 < float(aligned["overlap"]) < 0.7  # the crops share half of their patches


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("weights", [Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1), Weights()])
def test_each_part_trains_all_that_is_trained_and_no_teacher(weights: Weights, dims: int) -> None:
    objective = hybrid(weights, dims=dims, views=FLIPS)
    objective(crops(dims=dims)).total.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in objective.parameters() if parameter.requires_grad
    )
    assert float(objective.encoder.embed.weight.grad.abs().sum()) > 0
    teachers = [parameter for name, parameter in objective.named_parameters() if name.startswith("teacher")]
    assert all(parameter.grad is None for parameter in teachers)
    assert bool(teachers) == weights.taught


def test_what_counts_0_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    contrast, masked = hybrid(Weights(0, 0, 1)), hybrid(Weights(1, 0, 0))

    def forbidden(*_: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(contrast.decoder, "forward", forbidden)
    assert {"masked", "dense"} & contrast(crops()).terms.keys() == set()
    assert contrast.picture(crops()) is None
    assert masked.teacher is None
    assert {"dense", "nt_xent"} & masked(crops()).terms.keys() == set()


def test_crops_of_one_patient_repel_nothing() -> None:
    batch = replace(crops(), patient=torch.zeros(3, dtype=torch.long))
    assert float(hybrid(Weights(0, 0, 1))(batch).terms["nt_xent"]) == 0


def test_crops_of_two_scans_have_no_dense_loss() -> None:
    batch = crops()
    loss = hybrid(views=FLIPS)(replace(batch, corner=torch.full_like(batch.corner, float("nan"))))
    loss.total.backward()
    assert float(loss.terms["dense"]) == float(loss.terms["overlap"]) == 0
    assert loss.total.isfinite()


def test_two_views_of_one_crop_overlap_wholly() -> None:
    assert float(hybrid(views=FLIPS)(Batch.of(torch.randn(3, 1, 8, 8), Streams.of(0, range(3)))).terms["overlap"]) == 1


def test_the_teacher_follows_slower_and_slower() -> None:
    objective = hybrid()
    before = objective.teacher.module.embed.weight.clone()
    with torch.no_grad():
        objective.encoder.embed.weight.add_(1)
    objective.after_step(0.0)
    torch.testing.assert_close(objective.teacher.module.embed.weight, before + 0.005, atol=1e-6, rtol=0)
    after = objective.teacher.module.embed.weight.clone()
    objective.after_step(1.0)
    assert objective.teacher.module.embed.weight.equal(after)


def test_features_at_one_point_show_in_the_logs() -> None:
    objective = hybrid()
    with torch.no_grad():
        objective.encoder.norm.weight.zero_()
        objective.encoder.norm.bias.fill_(1)
    terms = objective(crops()).terms
    assert float(terms["feature_std"]) == pytest.approx(0, abs=1e-5)


def test_the_same_seed_gives_the_same_loss() -> None:
    objective = hybrid(views=FLIPS)
    first, again = (objective(crops()).total for _ in range(2))
    assert first.equal(again)


@pytest.mark.parametrize(("values", "message"), [((0, 0, 0), "one of them > 0"), ((1, -1, 0), ">= 0")])
def test_weights_out_of_range_are_refused(values: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Weights(*values)


def test_a_huber_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="huber must be > 0"):
        hybrid(huber=0.0)
