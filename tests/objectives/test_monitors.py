import pytest
import torch

from medssl.objectives.monitors import feature_std, found


def test_features_that_fill_the_sphere_have_a_deviation_near_1() -> None:
    assert float(feature_std(torch.randn(2000, 32, generator=torch.Generator().manual_seed(0)))) == pytest.approx(1, abs=0.05)


def test_features_at_one_point_have_none() -> None:
    assert float(feature_std(torch.randn(1, 8).expand(16, 8))) == pytest.approx(0, abs=1e-6)


def test_the_share_found_counts_rows_whose_partner_is_the_closest_choice() -> None:
    similar = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.5, 0.0], [0.0, 0.0, 1.0]])
    choices = torch.ones(3, 3, dtype=torch.bool)
    assert float(found(similar, choices)) == pytest.approx(2 / 3)
    choices[1, 0] = False
    assert float(found(similar, choices)) == 1


def test_of_no_rows_none_is_found() -> None:
    assert float(found(torch.ones(0, 0), torch.ones(0, 0, dtype=torch.bool))) == 0


def test_rows_without_a_choice_are_not_counted() -> None:
    similar = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    choices = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert found(similar, choices) == 0.5
    assert found(similar, torch.eye(3, dtype=torch.bool)) == 0
