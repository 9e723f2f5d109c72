import pytest

from medssl.errors import ConfigError
from medssl.evaluation.lesion_point import choose_lesion_point
from medssl.evaluation.lesions import Marks

SCANS = [
    Marks("a", hits=(0.9, 0.4), alarms=(0.6,), duplicates=(), n_lesions=2),
    Marks("b", hits=(), alarms=(0.3, 0.2), duplicates=(), n_lesions=1),
]


def f1(cut: float) -> float:
    found = sum(score >= cut for scan in SCANS for score in scan.hits)
    false = sum(score >= cut for scan in SCANS for score in scan.alarms)
    return 2 * found / (found + false + 3)


def test_the_best_f1_is_that_of_a_search_over_all_scores() -> None:
    point = choose_lesion_point(SCANS, locked_at="now")
    assert f1(float(str(point["threshold"]))) == max(f1(cut) for cut in (0.9, 0.6, 0.4, 0.3, 0.2))
    assert (point["n"], point["n_scans"], point["sensitivity"], point["fp_per_scan"]) == (3, 2, pytest.approx(2 / 3), 0.5)


@pytest.mark.parametrize(("rule", "threshold"), [("fp <= 0", 0.75), ("fp <= 0.5", 0.35), ("fp <= 8", 0.35)])
def test_a_rate_of_false_positives_is_kept(rule: str, threshold: float) -> None:
    assert choose_lesion_point(SCANS, rule=rule, locked_at="now")["threshold"] == pytest.approx(threshold)


def test_without_a_lesion_the_rule_says_so() -> None:
    point = choose_lesion_point([Marks("a", (), (0.7,), (), 0)], locked_at="now")
    assert float(str(point["threshold"])) > 0.7
    assert "no validation scan with lesion" in str(point["rule"])


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp <= 1"):
        choose_lesion_point(SCANS, rule="best", locked_at="now")
