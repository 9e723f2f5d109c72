import math

import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.simclr import SimCLR, nt_xent
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def brute_force(z: torch.Tensor, temperature: float) -> float:
    """Equation 1, term by term."""
    views = [F.normalize(z[sample, view], dim=0) for sample in range(len(z)) for view in range(2)]
    losses = []
    for anchor, one in enumerate(views):
        positive = math.exp(float(one @ views[anchor ^ 1]) / temperature)
        others = sum(math.exp(float(one @ other) / temperature) for place, other in enumerate(views) if place != anchor)
        losses.append(-math.log(positive / others))
    return sum(losses) / len(losses)


def test_nt_xent_equals_the_double_loop() -> None:
    z = torch.randn(5, 2, 7)
    assert float(nt_xent(z, 0.3)) == pytest.approx(brute_force(z, 0.3), abs=1e-5)


def test_nt_xent_of_equal_embeddings_is_the_log_of_the_choices() -> None:
    assert float(nt_xent(torch.ones(8, 2, 4), 0.5)) == pytest.approx(math.log(2 * 8 - 1), abs=1e-5)


def test_nt_xent_does_not_depend_on_the_order_of_samples() -> None:
    z = torch.randn(6, 2, 5)
    torch.testing.assert_close(nt_xent(z, 0.2), nt_xent(z[torch.randperm(6)], 0.2))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_encoder_gets_a_gradient(dims: int) -> None:
    objective = SimCLR(ViT((4,) * dims, width=24, depth=1, heads=2), projection=8)
    objective(Batch.of(torch.randn(4, 1, *(8,) * dims), Streams.of(0, range(4)))).total.backward()
    assert objective.encoder.embed.weight.grad is not None


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be > 0, got 0.0"):
        SimCLR(ViT((4, 4)), temperature=0.0)
