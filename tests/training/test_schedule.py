import pytest

from medssl.training.schedule import sawtooth, warmup_cosine


def test_the_rate_rises_and_then_falls_to_0() -> None:
    factors = [warmup_cosine(100, 10)(step) for step in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_half_way_down_is_half_the_rate() -> None:
    assert warmup_cosine(100, 0)(50) == pytest.approx(0.5)


def test_a_sawtooth_of_one_tooth_is_a_warm_up_and_a_cosine() -> None:
    assert [sawtooth((0,), 20, warmup=0.1)(step) for step in range(20)] == [warmup_cosine(20, 2)(step) for step in range(20)]


def test_each_tooth_rises_anew_and_nothing_moves_before_the_first() -> None:
    late, both = sawtooth((10,), 30, warmup=0.2), sawtooth((0, 10), 30, warmup=0.2)
    assert [late(step) for step in range(10)] == [0.0] * 10
    assert [late(step) for step in range(10, 30)] == [both(step) for step in range(10, 30)]
    assert both(5) == pytest.approx(1)  # half of the first tooth goes up
    assert both(10) < both(9) + both(14)
    assert both(14) == pytest.approx(1)
