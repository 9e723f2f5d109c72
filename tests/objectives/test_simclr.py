import math

import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.simclr import Contrast, SimCLR, cross_nt_xent, nt_xent
from medssl.views.batch import Batch
from medssl.views.streams import Streams

PATIENT = [0, 1, 1, 2, 3]
CONTRASTS = {
    "plain": Contrast(),
    "decoupled": Contrast(decoupled=True),
    "weighted": Contrast(decoupled=True, sigma=0.5),
    "hard": Contrast(beta=0.7),
    "debiased": Contrast(tau_plus=0.1),
    "all": Contrast(decoupled=True, sigma=0.3, beta=1.0, tau_plus=0.2),
}


def one_loss(positive: float, negatives: list[float], temperature: float, contrast: Contrast, weight: float) -> float:
    """An anchor's loss as in the papers, from cosines: SimCLR (1), DCL (6), hard negatives (4), debiased (8)."""
    attracts, repels = math.exp(positive / temperature), [math.exp(cosine / temperature) for cosine in negatives]
    hardness = [one**contrast.beta for one in repels]
    total = sum(one * weight for one, weight in zip(repels, hardness, strict=True)) / (sum(hardness) / len(hardness))
    total = (total - contrast.tau_plus * len(repels) * attracts) / (1 - contrast.tau_plus)
    total = max(total, len(repels) * math.exp(-1 / temperature)) if contrast.tau_plus else total
    return math.log(total if contrast.decoupled else total + attracts) - weight * positive / temperature


def weights(positives: list[float], sigma: float) -> list[float]:
    """Section 3.3 of Yeh et al."""
    if not sigma:
        return [1.0] * len(positives)
    pulls = [math.exp(one / sigma) for one in positives]
    return [2 - pull / (sum(pulls) / len(pulls)) for pull in pulls]


def brute_force(z: torch.Tensor, temperature: float, patient: list[int], contrast: Contrast) -> float:
    rows = [(sample, view, F.normalize(z[sample, view], dim=0)) for sample in range(len(z)) for view in range(2)]
    positives = [float(row @ rows[place ^ 1][2]) for place, (_, _, row) in enumerate(rows)]
    negatives = [[float(row @ other) for there, _, other in rows if patient[there] != patient[here]] for here, _, row in rows]
    weighted = zip(positives, negatives, weights(positives, contrast.sigma), strict=True)
    losses = [one_loss(positive, others, temperature, contrast, weight) for positive, others, weight in weighted]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", CONTRASTS)
def test_nt_xent_equals_the_double_loop(name: str) -> None:
    z = torch.randn(5, 2, 7)
    expected = brute_force(z, 0.3, PATIENT, CONTRASTS[name])
    assert float(nt_xent(z, 0.3, patient=torch.tensor(PATIENT), contrast=CONTRASTS[name])) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_cross_form_equals_a_loop_over_the_keys_of_the_other_view(name: str) -> None:
    queries, keys, contrast = F.normalize(torch.randn(5, 2, 7), dim=2), F.normalize(torch.randn(5, 2, 7), dim=2), CONTRASTS[name]
    pairs = [(sample, view) for view in range(2) for sample in range(5)]
    positives = [float(queries[sample, view] @ keys[sample, 1 - view]) for sample, view in pairs]
    negatives = [
        [float(queries[sample, view] @ keys[other, 1 - view]) for other in range(5) if PATIENT[other] != PATIENT[sample]]
        for sample, view in pairs
    ]
    weighted = zip(positives, negatives, weights(positives, contrast.sigma), strict=True)
    expected = sum(one_loss(positive, others, 0.3, contrast, weight) for positive, others, weight in weighted) / 10
    assert float(cross_nt_xent(queries, keys, 0.3, patient=torch.tensor(PATIENT), contrast=contrast)) == pytest.approx(expected, abs=1e-5)


def test_nt_xent_of_equal_embeddings_is_the_log_of_the_choices() -> None:
    assert float(nt_xent(torch.ones(8, 2, 4), 0.5)) == pytest.approx(math.log(2 * 8 - 1), abs=1e-5)


def test_an_untrained_network_finds_a_view_among_all_others_by_chance() -> None:
    torch.manual_seed(0)
    objective = SimCLR(ViT((4, 4), width=24, depth=1, heads=2))
    loss = objective(Batch.of(torch.randn(8, 1, 16, 16), Streams.of(0, range(8)))).total
    assert float(loss.detach()) == pytest.approx(math.log(2 * 8 - 1), abs=0.15)


@pytest.mark.parametrize("name", CONTRASTS)
def test_nt_xent_does_not_depend_on_the_order_of_samples(name: str) -> None:
    z, order = torch.randn(6, 2, 5), torch.randperm(6)
    patient = torch.tensor([0, 0, 1, 2, 3, 3])
    before, after = (
        nt_xent(one, 0.2, patient=whose, contrast=CONTRASTS[name]) for one, whose in [(z, patient), (z[order], patient[order])]
    )
    torch.testing.assert_close(before, after)


def test_crops_of_one_patient_do_not_repel_each_other() -> None:
    z = torch.randn(2, 2, 5, requires_grad=True)
    loss = nt_xent(z, 0.2, patient=torch.tensor([4, 4]))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss == 0
    assert gradient.eq(0).all()  # nothing to tell apart


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_cold_temperature_gives_finite_losses_and_gradients(name: str) -> None:
    z = torch.randn(4, 2, 3, requires_grad=True)
    loss = nt_xent(z, 0.01, patient=torch.tensor([0, 1, 1, 1]), contrast=CONTRASTS[name])
    loss.backward()
    assert z.grad is not None
    assert loss.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", CONTRASTS)
def test_aligned_views_cost_less_than_random_ones(name: str) -> None:
    z = torch.randn(16, 2, 8)
    aligned = z[:, :1].expand(-1, 2, -1)
    assert nt_xent(aligned, 0.2, contrast=CONTRASTS[name]) < nt_xent(z, 0.2, contrast=CONTRASTS[name])


def test_the_loss_is_computed_in_float32_under_automatic_casts() -> None:
    z = torch.randn(5, 2, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(z, 0.1)
    assert inside.equal(nt_xent(z, 0.1))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_encoder_gets_a_gradient(dims: int) -> None:
    objective = SimCLR(ViT((4,) * dims, width=24, depth=1, heads=2), projection=8)
    objective(Batch.of(torch.randn(4, 1, *(8,) * dims), Streams.of(0, range(4)))).total.backward()
    assert objective.encoder.embed.weight.grad is not None


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be > 0, got 0.0"):
        SimCLR(ViT((4, 4)), temperature=0.0)


@pytest.mark.parametrize("options", [{"beta": -1}, {"sigma": -1}, {"tau_plus": 1}])
def test_a_weight_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="tau_plus in"):
        Contrast(**options)
