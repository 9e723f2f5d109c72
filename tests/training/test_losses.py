import pytest
import torch
import torch.nn.functional as F

from medssl.models.heads import ViTClassifier
from medssl.models.vit import ViT
from medssl.training.classifier import Classifier
from medssl.training.segmenter import dice_loss
from medssl.training.settings import Training
from medssl.views.augment import Augment


def test_dice_of_the_truth_is_0_and_of_its_opposite_1() -> None:
    lesion = (torch.rand(2, 1, 8, 8) > 0.5).float()
    assert float(dice_loss(lesion * 100 - 50, lesion)) == pytest.approx(0, abs=0.02)
    assert float(dice_loss(50 - lesion * 100, lesion)) == pytest.approx(1, abs=0.02)


def test_dice_equals_the_sum_written_out() -> None:
    logits, lesion = torch.randn(2, 1, 3, 3), (torch.rand(2, 1, 3, 3) > 0.5).float()
    overlap = total = 0.0
    for logit, truth in zip(logits.flatten(), lesion.flatten(), strict=True):
        probability = 1 / (1 + float((-logit).exp()))
        overlap += probability * float(truth)
        total += probability + float(truth)
    assert float(dice_loss(logits, lesion)) == pytest.approx(1 - (2 * overlap + 1) / (total + 1), abs=1e-5)


def test_samples_without_a_label_do_not_count() -> None:
    module = Classifier(ViTClassifier(ViT((4, 4), width=8, depth=1, heads=1)), Training(), views=Augment(), seed=0)
    logits = torch.tensor([[2.0], [-1.0], [7.0]])
    loss = module.loss(logits, torch.zeros(3, 1, 4, 4), torch.tensor([1, 0, -1]))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:2, 0], torch.tensor([1.0, 0.0])))
