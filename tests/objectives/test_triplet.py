import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.triplet import Triplet, triplet
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def brute_force(z: torch.Tensor, margin: float, patient: list[int]) -> float:
    rows = [(sample, F.normalize(z[sample, view], dim=0)) for sample in range(len(z)) for view in range(2)]
    losses = []
    for place, (sample, anchor) in enumerate(rows):
        positive = float((anchor - rows[place ^ 1][1]).square().sum())
        negatives = [float((anchor - row).square().sum()) for other, row in rows if patient[other] != patient[sample]]
        further = [distance for distance in negatives if distance > positive]
        losses.append(max(0.0, positive - (min(further) if further else max(negatives)) + margin))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("dimensions", [2, 9])
def test_the_loss_equals_a_loop_over_anchors(dimensions: int) -> None:
    z, patient = torch.randn(7, 2, dimensions), [0, 1, 1, 2, 3, 3, 4]
    assert float(triplet(z, 0.3, patient=torch.tensor(patient))) == pytest.approx(brute_force(z, 0.3, patient), abs=1e-5)


def test_without_a_semi_hard_negative_the_furthest_counts() -> None:
    z = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.6, 0.8], [0.8, 0.6]]])  # the first positives lie opposite
    assert float(triplet(z, 0.2)) == pytest.approx(brute_force(z, 0.2, [0, 1]), abs=1e-5)


def test_equal_embeddings_cost_the_margin() -> None:
    assert float(triplet(torch.ones(4, 2, 3), 0.2)) == pytest.approx(0.2, abs=1e-5)


def test_aligned_views_cost_less_than_random_ones() -> None:
    z = torch.randn(16, 2, 8)
    assert triplet(z[:, :1].expand(-1, 2, -1), 0.2) < triplet(z, 0.2)


def test_the_loss_does_not_depend_on_the_order_of_samples() -> None:
    z, order = torch.randn(6, 2, 5), torch.randperm(6)
    torch.testing.assert_close(triplet(z, 0.2), triplet(z[order], 0.2))


def test_one_patient_alone_gives_no_loss_and_no_gradient() -> None:
    z = torch.randn(3, 2, 4, requires_grad=True)
    loss = triplet(z, 0.2, patient=torch.zeros(3))
    loss.backward()
    assert loss == 0
    assert z.grad is not None
    assert z.grad.eq(0).all()


def test_every_trained_parameter_gets_a_gradient() -> None:
    objective = Triplet(ViT((4, 4), width=24, depth=1, heads=2), projection=8)
    objective(Batch.of(torch.randn(4, 1, 8, 8), Streams.of(0, range(4)))).total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)
    assert objective.encoder.embed.weight.grad.abs().sum() > 0


def test_a_margin_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin must be > 0, got 0"):
        Triplet(ViT((4, 4)), margin=0)
