import pytest
import torch
import torch.nn.functional as F

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.encoder import Encoder
from medssl.models.vit import ViT
from medssl.objectives.moco import MoCo
from medssl.objectives.pairs import two_views
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def moco(**options: object) -> MoCo:
    return MoCo(ViT((4, 4), width=24, depth=1, heads=2), projection=8, hidden=16, **options)


def batch() -> Batch:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch.of(images, Streams.of(0, range(4)))


def test_the_loss_equals_algorithm_1_of_the_paper() -> None:
    objective = moco(temperature=0.3)
    with torch.no_grad():
        objective.teacher_projector.module[0].weight.add_(0.1)
    views = two_views(batch(), objective.views)
    expected = torch.zeros(())
    for view in range(2):
        query = F.normalize(objective.query(views[:, view]), dim=1)
        key = F.normalize(objective.key(views[:, 1 - view]), dim=1)
        expected = expected + 2 * 0.3 * F.cross_entropy(query @ key.T / 0.3, torch.arange(4))
    torch.testing.assert_close(objective(batch()).total, expected)


def test_gradients_reach_the_student_and_never_the_teacher() -> None:
    objective = moco()
    objective(batch()).total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)
    assert objective.encoder.embed.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for teacher in (objective.teacher, objective.teacher_projector) for parameter in teacher.parameters())


def test_the_teacher_follows_behind_a_step() -> None:
    objective = moco(momentum=0.5)
    before = objective.teacher.module.embed.weight.clone()
    with torch.no_grad():
        objective.encoder.embed.weight += 1
        objective.projector[0].weight += 1
    objective.after_step(0.0)
    torch.testing.assert_close(objective.teacher.module.embed.weight, before + 0.5)
    objective.after_step(1.0)
    torch.testing.assert_close(objective.teacher.module.embed.weight, before + 0.5)
    assert not objective.teacher_projector.module[0].weight.equal(objective.projector[0].weight)


def test_frozen_patches_get_no_gradient() -> None:
    objective = moco(freeze_patches=True)
    objective(batch()).total.backward()
    assert objective.encoder.embed.weight.grad is None
    assert objective.encoder.blocks[0].qkv.weight.grad is not None


class Convolution(Encoder):
    spatial_dims, in_channels, width, stride = 2, 1, 4, (1, 1)

    def architecture(self) -> Architecture:
        return Architecture.of(self)

    def pyramid(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> list[torch.Tensor]:
        del hidden
        return [images.expand(-1, 4, -1, -1)]


def test_only_a_vit_has_patches_to_freeze() -> None:
    with pytest.raises(ConfigError, match="freeze_patches needs a ViT, got Convolution"):
        MoCo(Convolution(), freeze_patches=True)


def test_a_momentum_above_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        moco(momentum=1.5)
