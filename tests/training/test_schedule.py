import pytest

from medssl.training.schedule import warmup_cosine


def test_the_rate_rises_and_then_falls_to_0() -> None:
    factors = [warmup_cosine(100, 10)(step) for step in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_half_way_down_is_half_the_rate() -> None:
    assert warmup_cosine(100, 0)(50) == pytest.approx(0.5)
