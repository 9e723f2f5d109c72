"""Losses against the same written out in numpy, number by number."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.heads import ViTClassifier
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.unet import PyramidUNet
from medssl.models.vit import ViT
from medssl.training.finetuning.classifier import Classifier
from medssl.training.finetuning.segmenter import Segmenter
from medssl.training.losses import CrossEntropy, DiceCrossEntropy, Focal, Loss, Truth, Tversky, dice_loss
from medssl.training.settings import Training
from medssl.views.augment import Augment


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def one_logit() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 3, 4, generator=generator), (torch.rand(2, 1, 3, 4, generator=generator) > 0.5).float()


def four_channels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 3, 4, generator=generator), torch.randint(0, 4, (2, 1, 3, 4), generator=generator).float()


def slow_focal_of_one_logit(gamma: float, smoothing: float = 0.0, weights: tuple[float, float] = (1, 1)) -> float:
    total = count = 0.0
    for logit, truth in zip(*(part.flatten().tolist() for part in one_logit()), strict=True):
        share = truth * (1 - smoothing) + smoothing / 2
        p, weight = sigmoid(logit), weights[int(truth)]
        total -= weight * (share * (1 - p) ** gamma * math.log(p) + (1 - share) * p**gamma * math.log(1 - p))
        count += weight
    return total / count


def slow_focal_of_classes(gamma: float, smoothing: float = 0.0, weights: tuple[float, ...] = (1, 1, 1, 1)) -> float:
    logits, numbers = (part.numpy() for part in four_channels())
    total = count = 0.0
    for b, i, j in np.ndindex(2, 3, 4):
        p, truth = softmax(logits[b, :, i, j]), int(numbers[b, 0, i, j])
        for c in range(4):
            share = (c == truth) * (1 - smoothing) + smoothing / 4
            total -= weights[truth] * share * (1 - p[c]) ** gamma * math.log(p[c])
        count += weights[truth]
    return total / count


def slow_tversky(alpha: float, beta: float, power: float) -> float:
    logits, numbers = (part.numpy() for part in four_channels())
    losses = []
    for c in (1, 2, 3):
        overlap = alarmed = missed = 0.0
        for b, i, j in np.ndindex(2, 3, 4):
            p, there = softmax(logits[b, :, i, j])[c], numbers[b, 0, i, j] == c
            overlap, alarmed, missed = overlap + p * there, alarmed + p * (1 - there), missed + (1 - p) * there
        losses.append((1 - (overlap + 0.5) / (overlap + alpha * alarmed + beta * missed + 0.5)) ** power)
    return float(np.mean(losses))


def test_dice_of_the_truth_is_0_and_of_its_opposite_1() -> None:
    lesion = (torch.rand(2, 1, 8, 8) > 0.5).float()
    assert float(dice_loss(lesion * 100 - 50, lesion)) == pytest.approx(0, abs=0.02)
    assert float(dice_loss(50 - lesion * 100, lesion)) == pytest.approx(1, abs=0.02)


def test_dice_equals_the_sum_written_out() -> None:
    logits, lesion = one_logit()
    overlap = total = 0.0
    for logit, truth in zip(logits.flatten().tolist(), lesion.flatten().tolist(), strict=True):
        overlap += sigmoid(logit) * truth
        total += sigmoid(logit) + truth
    assert float(dice_loss(logits, lesion)) == pytest.approx(1 - (2 * overlap + 1) / (total + 1), abs=1e-5)


def test_the_default_of_a_segmenter_of_one_channel_is_what_it_was_before_there_were_classes() -> None:
    logits, lesion = one_logit()
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * lesion).sum() + 1) / (probability.sum() + lesion.sum() + 1)
    assert DiceCrossEntropy()(logits, Truth.of_mask(lesion, 1)).equal(dice + F.binary_cross_entropy_with_logits(logits, lesion))


def test_samples_without_a_label_do_not_count() -> None:
    module = Classifier(ViTClassifier(ViT((4, 4), width=8, depth=1, heads=1)), Training(), views=Augment(), seed=0)
    logits = torch.tensor([[2.0], [-1.0], [7.0]])
    loss = module.loss(logits, torch.zeros(3, 1, 4, 4), torch.tensor([1, 0, -1]))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:2, 0], torch.tensor([1.0, 0.0])))


def test_one_class_of_several_is_torchs_cross_entropy() -> None:
    logits, label = torch.randn(5, 3), torch.tensor([0, 2, -1, 1, 2])
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.5, 1.0, 2.0]])
    loss = CrossEntropy(smoothing=0.1)(logits, Truth.of_labels(label, 3))
    torch.testing.assert_close(loss, F.cross_entropy(logits, label, ignore_index=-1, label_smoothing=0.1))
    weighted = CrossEntropy()(logits, Truth.of_labels(label, 3, weights=weights))
    torch.testing.assert_close(weighted, F.cross_entropy(logits, label, ignore_index=-1, weight=weights[1]))


def test_several_labels_are_a_cross_entropy_each() -> None:
    logits, label = torch.randn(3, 2), torch.tensor([[1, 0], [0, 1], [-1, -1]])
    loss = CrossEntropy()(logits, Truth.of_labels(label, 2))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:2], label[:2].float()))


@pytest.mark.parametrize(
    ("gamma", "smoothing", "weights"), [(0.0, 0.0, (1.0, 1.0)), (2.0, 0.0, (1.0, 1.0)), (2.0, 0.1, (0.25, 0.75)), (0.0, 0.2, (1.0, 3.0))]
)
def test_focal_of_one_logit_equals_the_sum_written_out(gamma: float, smoothing: float, weights: tuple[float, float]) -> None:
    logits, lesion = one_logit()
    truth = Truth.of_mask(lesion, 1, weights=torch.tensor(weights).view(2, 1))
    loss = CrossEntropy(gamma=gamma, smoothing=smoothing)(logits, truth)
    assert float(loss) == pytest.approx(slow_focal_of_one_logit(gamma, smoothing, weights), abs=1e-5)


@pytest.mark.parametrize(("gamma", "smoothing", "weights"), [(0.0, 0.0, (1.0,) * 4), (2.0, 0.1, (0.1, 1.0, 2.0, 3.0))])
def test_focal_of_classes_equals_the_sum_written_out(gamma: float, smoothing: float, weights: tuple[float, ...]) -> None:
    logits, numbers = four_channels()
    truth = Truth.of_mask(numbers, 4, weights=torch.stack([torch.ones(4), torch.tensor(weights)]))
    loss = Focal(gamma=gamma, smoothing=smoothing)(logits, truth)
    assert float(loss) == pytest.approx(slow_focal_of_classes(gamma, smoothing, weights), abs=1e-5)


@pytest.mark.parametrize(("alpha", "beta", "power"), [(0.3, 0.7, 1.0), (0.3, 0.7, 0.75), (0.5, 0.5, 1.0)])
def test_tversky_equals_the_sum_written_out(alpha: float, beta: float, power: float) -> None:
    logits, numbers = four_channels()
    loss = Tversky(alpha=alpha, beta=beta, power=power)(logits, Truth.of_mask(numbers, 4))
    assert float(loss) == pytest.approx(slow_tversky(alpha, beta, power), abs=1e-5)


def test_tversky_that_weighs_both_errors_alike_is_dice() -> None:
    logits, lesion = one_logit()
    loss = Tversky(alpha=0.5, beta=0.5)(logits, Truth.of_mask(lesion, 1))
    torch.testing.assert_close(loss, dice_loss(logits, lesion))


def test_the_classes_of_dice_are_all_but_the_background() -> None:
    logits, numbers = four_channels()
    together = DiceCrossEntropy()(logits, Truth.of_mask(numbers, 4)) - CrossEntropy()(logits, Truth.of_mask(numbers, 4))
    probability = logits.softmax(dim=1)
    apart = []
    for c in (1, 2, 3):
        overlap = (probability[:, c] * (numbers[:, 0] == c)).sum()
        apart.append(1 - (2 * overlap + 1) / (probability[:, c].sum() + (numbers == c).sum() + 1))
    torch.testing.assert_close(together, torch.stack(apart).mean())


@pytest.mark.parametrize("make", [CrossEntropy, Focal, DiceCrossEntropy, Tversky])
def test_a_perfect_answer_costs_less_than_any_other(make: Callable[[], Loss]) -> None:
    logits, numbers = four_channels()
    truth = Truth.of_mask(numbers, 4)
    assert make()(truth.share * 20, truth) < make()(logits, truth)


def test_coarser_scales_count_by_halves() -> None:
    logits, lesion = torch.randn(1, 1, 4, 4), (torch.rand(1, 1, 4, 4) > 0.5).float()
    coarse, truth = torch.randn(1, 1, 2, 2), Truth.of_mask(lesion, 1)
    loss = CrossEntropy()([logits, coarse], truth)
    fine, rough = CrossEntropy()(logits, truth), F.binary_cross_entropy_with_logits(coarse, lesion[:, :, ::2, ::2])
    torch.testing.assert_close(loss, (fine + 0.5 * rough) / 1.5)


def test_a_network_with_deep_supervision_learns_at_every_scale() -> None:
    network = PyramidUNet(ResidualEncoder(spatial_dims=2, stage_widths=(4, 8, 8), stage_blocks=(1, 1, 1)), deep_supervision=True)
    module = Segmenter(network, Training(), views=Augment(), seed=0)
    images, lesion = torch.randn(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    module.step_loss(images, lesion, torch.zeros(2)).backward()
    assert all(head.weight.grad is not None and head.weight.grad.any() for head in network.heads)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(smoothing=1.0),
        lambda: Focal(gamma=-1.0),
        lambda: Tversky(alpha=0.0),
        lambda: DiceCrossEntropy(scale_weight=-1.0),
    ],
)
def test_a_value_out_of_range_is_refused(make: Callable[[], Loss]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        make()


def test_weights_of_a_small_batch_do_not_damp_its_mean() -> None:
    logits, label = torch.tensor([[0.5], [-1.0]]), torch.tensor([1, 1])
    plain, weighed = (
        CrossEntropy()(logits, Truth.of_labels(label, 1, weights=weights)) for weights in (None, torch.tensor([[3.0], [0.25]]))
    )
    torch.testing.assert_close(weighed, plain)
