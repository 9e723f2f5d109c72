"""Image-text contrast: the loss against a loop, who is a negative of whom, and whether it learns."""

import math
from dataclasses import replace

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.text import TextTower
from medssl.models.vit import ViT
from medssl.objectives.image_text import ImageText, alternatives, cosines, symmetric_loss
from medssl.views.augment import Augment
from medssl.views.batch import Batch
from medssl.views.streams import Streams
from tests.models.test_text import bytes_of

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0.1, blur=0)


def objective() -> ImageText:
    torch.manual_seed(0)
    return ImageText(ViT((4, 4), width=16, depth=1, heads=2), text=TextTower(width=16, depth=1, heads=2), projection=8, views=STILL)


def batch_of(images: torch.Tensor, *texts: str) -> Batch:
    return replace(Batch.of(images, Streams.of(0, range(len(images)))), text=bytes_of(*texts))


def brute_force(logits: torch.Tensor, patient: list[int], sentence: list[int]) -> float:
    """Every choice of every image and every sentence, one by one; those without a choice are left out."""
    losses = []
    for table in (logits, logits.T):
        for row in range(len(table)):
            others = [column for column in range(len(table)) if patient[column] != patient[row] and sentence[column] != sentence[row]]
            total = sum(math.exp(float(table[row, column])) for column in [row, *others])
            losses += [-math.log(math.exp(float(table[row, row])) / total)] if others else []
    return sum(losses) / len(losses)


@pytest.mark.parametrize("patient", [[0, 1, 2, 3], [0, 0, 1, 2]])
def test_the_loss_equals_a_loop_over_choices(patient: list[int]) -> None:
    logits, sentence = torch.randn(4, 4), [0, 1, 1, 2]
    loss = symmetric_loss(logits, alternatives(torch.tensor(patient), torch.tensor(sentence)))
    assert float(loss) == pytest.approx(brute_force(logits, patient, sentence), abs=1e-5)


def test_equal_embeddings_cost_the_log_of_the_choices() -> None:
    similar = cosines(torch.ones(6, 3), torch.ones(6, 3))
    assert float(symmetric_loss(similar, alternatives(torch.arange(6), torch.arange(6)))) == pytest.approx(math.log(6), abs=1e-6)


def test_scans_of_a_patient_and_equal_sentences_are_no_choices() -> None:
    pairs = alternatives(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    assert pairs.tolist() == [[True, False, False], [False, True, True], [False, True, True]]


def test_a_scan_without_a_sentence_takes_no_part() -> None:
    images = torch.randn(4, 1, 8, 8)
    method = objective()
    method.views = replace(STILL, noise=0)
    some = method(batch_of(images, "lesion", "", "normal", ""))
    alone = method(batch_of(images[::2], "lesion", "normal"))
    torch.testing.assert_close(some.total, alone.total)


@pytest.mark.parametrize("texts", [("", ""), ("same", "same"), ("lesion", "")])
def test_without_a_choice_the_loss_is_0_and_has_gradients(texts: tuple[str, str]) -> None:
    method = objective()
    loss = method(batch_of(torch.randn(2, 1, 8, 8), *texts)).total
    loss.backward()
    assert loss.detach() == 0
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in method.parameters() if parameter.requires_grad)


def test_crops_and_sentences_of_two_kinds_find_each_other() -> None:
    method = objective()
    optimizer = torch.optim.AdamW((parameter for parameter in method.parameters() if parameter.requires_grad), lr=3e-3)
    kinds = torch.tensor([0, 1] * 4)
    texts = [("No lesion." if kind == 0 else "Large lesion on the left.") for kind in kinds.tolist()]
    losses = []
    for step in range(40):
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step)) + 2 * kinds.view(8, 1, 1, 1)
        loss = method(batch_of(images, *texts))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        method.after_step(step / 40)
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert float(loss.terms["found"]) == 1


def test_the_temperature_is_learned_and_stays_above_its_least() -> None:
    method = objective()
    method(batch_of(torch.randn(2, 1, 8, 8), "a", "b")).total.backward()
    assert method.log_scale.grad is not None
    method.log_scale.data.fill_(9.0)
    method.after_step(0.5)
    assert float(method.scale().detach()) == pytest.approx(100, rel=1e-5)


def test_a_temperature_that_is_too_low_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be >= 0.01, got 0.0"):
        ImageText(ViT((4, 4)), temperature=0.0)
