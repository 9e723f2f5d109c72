import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.pairs import by_view, two_views
from medssl.objectives.vicreg import VICReg, covariance, invariance, variance
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def vicreg(**options: float) -> VICReg:
    return VICReg(ViT((4, 4), width=24, depth=1, heads=2), expansion=8, **options)


def batch() -> Batch:
    return Batch.of(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), Streams.of(0, range(4)))


def test_the_terms_equal_loops_over_dimensions() -> None:
    z = torch.randn(6, 2, 3)
    distances = [(z[sample, 0] - z[sample, 1]).square().mean() for sample in range(6)]
    torch.testing.assert_close(invariance(z), torch.stack(distances).mean())
    hinges, products = torch.zeros(()), torch.zeros(())
    for view in range(2):
        matrix = torch.cov(z[:, view].T)
        for one in range(3):
            hinges += (1 - (matrix[one, one] + 1e-4).sqrt()).clamp(min=0) / 3
            products += sum(matrix[one, other] ** 2 for other in range(3) if other != one) / 3
    torch.testing.assert_close(variance(z), hinges)
    torch.testing.assert_close(covariance(z), products)


def test_the_loss_weighs_the_terms_as_the_paper_does() -> None:
    objective = vicreg()
    z = by_view(objective.embed, two_views(batch(), objective.views))
    torch.testing.assert_close(objective(batch()).total, 25 * invariance(z) + 25 * variance(z) + covariance(z))


def test_the_variance_term_alarms_on_constant_features() -> None:
    assert float(variance(torch.ones(16, 2, 4))) == pytest.approx(2, abs=0.05)
    assert float(variance(3 * torch.randn(64, 2, 4))) == 0


def test_aligned_views_cost_less_than_random_ones() -> None:
    z = torch.randn(16, 2, 4)
    aligned = z[:, :1].expand(-1, 2, -1)
    loss = [25 * invariance(one) + 25 * variance(one) + covariance(one) for one in (aligned, z)]
    assert loss[0] < loss[1]


def test_every_trained_parameter_gets_a_gradient() -> None:
    objective = vicreg()
    objective(batch()).total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)
    assert objective.encoder.embed.weight.grad.abs().sum() > 0


def test_the_loss_does_not_depend_on_the_order_of_samples() -> None:
    z, order = torch.randn(6, 2, 5), torch.randperm(6)
    for term in (invariance, variance, covariance):
        torch.testing.assert_close(term(z), term(z[order]))


def test_one_sample_gives_a_finite_loss() -> None:
    assert variance(torch.randn(1, 2, 4)).isfinite()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be >= 0"):
        vicreg(covariance=-1)
