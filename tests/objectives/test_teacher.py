import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.objectives.teacher import Teacher, checked_momentum, cosine_momentum


def student() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_a_teacher_begins_as_its_student_and_has_no_gradient() -> None:
    one = student()
    teacher = Teacher(one)
    assert all(mine.equal(theirs) for mine, theirs in zip(teacher.module.parameters(), one.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_following_is_the_running_mean_of_weights_and_of_statistics() -> None:
    one = student()
    teacher = Teacher(one)
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    one(torch.randn(8, 3))
    with torch.no_grad():
        one[0].weight += 1
    teacher.follow(one, 0.9)
    after, target = teacher.module.state_dict(), one.state_dict()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(after[name], 0.9 * before[name] + 0.1 * target[name])
    assert after["1.num_batches_tracked"] == 1


def test_a_teacher_stays_in_evaluation_mode() -> None:
    assert not any(part.training for part in nn.ModuleList([Teacher(student())]).train()[0].modules())


def test_a_teacher_is_part_of_the_state() -> None:
    teacher, again = Teacher(student()), Teacher(student())
    again.load_state_dict(teacher.state_dict())
    assert again.module[0].weight.equal(teacher.module[0].weight)


def test_the_momentum_rises_from_its_start_to_1() -> None:
    steps = [cosine_momentum(0.9, progress / 10) for progress in range(11)]
    assert steps[0] == pytest.approx(0.9)
    assert steps[5] == pytest.approx(0.95)
    assert steps[-1] == 1
    assert steps == sorted(steps)


def test_a_momentum_above_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        checked_momentum(1.5)
