import math

import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT
from medssl.objectives.dino import DINO, LocalCrops, Sharpening, distillation, entropies, koleo, sinkhorn
from medssl.views.batch import Batch
from medssl.views.streams import Streams

PAPER = Sharpening(first=0.04, last=0.07, relative=False, balance="centre")


def dino(dims: int = 2, **options: object) -> DINO:
    encoder = ViT((4,) * dims, width=24, depth=1, heads=2)
    return DINO(encoder, prototypes=12, hidden=16, bottleneck=8, **{"local_crops": LocalCrops(2), **options})


def batch(dims: int = 2) -> Batch:
    images = torch.randn(4, 1, *(16,) * dims, generator=torch.Generator().manual_seed(0))
    return Batch.of(images, Streams.of(0, range(4)))


def test_distillation_equals_a_loop_over_pairs_of_different_crops() -> None:
    targets, logits = torch.randn(3, 2, 5).softmax(dim=2), torch.randn(3, 4, 5)
    losses = [
        -float(targets[sample, teacher] @ logits[sample, student].log_softmax(dim=0))
        for sample in range(3)
        for teacher in range(2)
        for student in range(4)
        if teacher != student
    ]
    assert float(distillation(targets, logits)) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_a_student_that_agrees_costs_less_than_a_random_one() -> None:
    logits = 5 * torch.randn(8, 1, 6).expand(-1, 3, -1)
    targets = logits[:, :2].softmax(dim=2)
    assert distillation(targets, logits) < distillation(targets, 5 * torch.randn(8, 3, 6))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("balance", ["centre", "sinkhorn", "both"])
def test_gradients_reach_the_student_and_never_the_teacher(dims: int, balance: str) -> None:
    objective = dino(dims, frozen=0.0, koleo=0.1, sharpening=Sharpening(balance=balance))  # type: ignore[arg-type]
    objective(batch(dims)).total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)
    assert objective.encoder.embed.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for teacher in (objective.teacher, objective.teacher_head) for parameter in teacher.parameters())


def test_prototypes_are_frozen_for_the_first_share_of_the_run_only() -> None:
    objective = dino(frozen=0.1)
    for progress, moves in [(0.05, False), (0.2, True)]:
        objective.zero_grad()
        objective.after_step(progress)
        objective(batch()).total.backward()
        assert objective.head.prototypes.grad.ne(0).any() == moves


def test_frozen_prototypes_change_no_value() -> None:
    head, features = dino().head, torch.randn(3, 24)
    assert head(features, frozen=torch.tensor(True)).equal(head(features))


def test_targets_take_the_running_mean_away_and_move_it_on() -> None:
    objective, cosines = dino(sharpening=PAPER), torch.randn(4, 2, 12)
    torch.testing.assert_close(objective.targets(cosines), (cosines / 0.04).softmax(dim=2))
    torch.testing.assert_close(objective.centre, 0.1 * cosines.mean(dim=(0, 1)))
    torch.testing.assert_close(objective.targets(cosines), ((cosines - 0.1 * cosines.mean(dim=(0, 1))) / 0.04).softmax(dim=2))


def test_looking_on_does_not_move_the_running_mean() -> None:
    objective = dino().eval()
    objective(batch())
    assert objective.centre.eq(0).all()


def test_the_teacher_is_sharpest_at_first() -> None:
    sharpening = Sharpening(first=0.04, last=0.08, warmup=0.5)
    progress = torch.tensor([0, 0.25, 0.5, 1])
    torch.testing.assert_close(sharpening.temperature(progress), torch.tensor([0.04, 0.06, 0.08, 0.08]))
    assert Sharpening(warmup=0).temperature(progress).eq(0.45).all()


def test_sinkhorn_uses_prototypes_evenly_and_equals_a_loop() -> None:
    logits = torch.randn(40, 4) + torch.tensor([5.0, 0, 0, 0])
    shares = logits.exp()
    for _ in range(3):
        for column in range(4):
            shares[:, column] /= shares[:, column].sum()
        for row in range(40):
            shares[row] /= shares[row].sum()
    torch.testing.assert_close(sinkhorn(logits), shares)
    torch.testing.assert_close(sinkhorn(logits, rounds=50).sum(dim=0), torch.full((4,), 10.0), atol=0.1, rtol=0)


def test_sinkhorn_balances_a_teacher_that_knows_one_prototype() -> None:
    one = F.one_hot(torch.zeros(8, 2, dtype=torch.long), 12).float() + 0.01 * torch.randn(8, 2, 12)
    collapsed = dino(sharpening=Sharpening(balance="sinkhorn")).targets(one)
    assert entropies(collapsed)["used_entropy"] > 0.8 * math.log(12)
    assert entropies((one / 0.04).softmax(dim=2))["used_entropy"] < 0.1


def test_targets_stay_sharp_where_features_are_still_alike() -> None:
    alike = 0.7 + 1e-3 * torch.randn(8, 2, 12)
    sharp, paper = (entropies(dino(sharpening=how).targets(alike))["target_entropy"] for how in (Sharpening(), PAPER))
    assert sharp < 0.6 * math.log(12)
    assert paper > 0.99 * math.log(12)


def test_relative_targets_do_not_depend_on_the_spread_of_likenesses() -> None:
    objective, cosines = dino(), torch.randn(8, 2, 12)
    torch.testing.assert_close(objective.targets(cosines), objective.targets(0.01 * cosines))


def test_koleo_equals_a_loop_over_nearest_strangers() -> None:
    features, patient = torch.randn(5, 2, 3), torch.tensor([0, 0, 1, 2, 2])
    points, losses = F.normalize(features, dim=2), []
    for view in range(2):
        for one in range(5):
            distances = [float((points[one, view] - points[other, view]).norm()) for other in range(5) if patient[other] != patient[one]]
            losses.append(-math.log(min(distances)))
    assert float(koleo(features, patient)) == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_koleo_of_equal_features_is_large_and_of_one_patient_0() -> None:
    assert koleo(torch.ones(4, 2, 3), torch.arange(4)) > 10
    assert koleo(torch.randn(4, 2, 3), torch.zeros(4)) == 0


def test_small_crops_are_multiples_of_the_stride() -> None:
    assert LocalCrops(share=0.4).size(torch.Size([160, 96, 16]), (16, 16, 8)) == [64, 32, 8]


def test_the_objective_resumes_where_it_was() -> None:
    first, again = dino(), dino()
    first(batch())
    first.after_step(0.3)
    again.load_state_dict(first.state_dict())
    assert first(batch()).total.equal(again(batch()).total)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"prototypes": 1}, "prototypes"), ({"momentum": 2}, "momentum"), ({"frozen": -1}, "frozen"), ({"koleo": -1}, "koleo")],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DINO(ViT((4, 4)), **wrong)  # type: ignore[arg-type]


def test_temperatures_shares_and_counts_are_checked() -> None:
    with pytest.raises(ConfigError, match="temperatures must be > 0"):
        Sharpening(first=0)
    with pytest.raises(ConfigError, match="warmup"):
        Sharpening(warmup=2)
    with pytest.raises(ConfigError, match="share in"):
        LocalCrops(share=0)


def test_small_crops_that_the_encoder_does_not_take_are_named() -> None:
    encoder = ResidualEncoder(spatial_dims=2, stage_widths=[4] * 5, stage_blocks=[1] * 5)  # 16 voxels a cell
    objective = DINO(encoder, prototypes=4, hidden=4, bottleneck=4)
    with pytest.raises(ConfigError, match=r"local_crops\.share 0\.5 of crops \[32, 32\] gives small crops \[16, 16\]"):
        objective.check_local_crops([32, 32])
    objective.check_local_crops([64, 64])
    assert encoder.training
