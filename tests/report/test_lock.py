import pytest

from medssl.report.lock import refusals


@pytest.mark.parametrize(
    ("locked", "started", "is_refused"),
    [
        ("2026-01-02T00:00:01+00:00", "2026-01-02T00:00:00+00:00", True),
        ("2026-01-02T00:00:00+00:00", "2026-01-02T00:00:00+00:00", False),
        ("2026-01-02T01:30:00+02:00", "2026-01-02T00:00:00+00:00", False),
        ("2026-01-02T00:00:01", "2026-01-02T00:00:00", True),
        (None, "2026-01-02T00:00:00+00:00", False),
        ("2026-01-02T00:00:01+00:00", None, False),
    ],
)
def test_a_threshold_is_refused_only_when_it_is_newer_than_the_first_score(locked, started, is_refused):
    run = {"started": started, "operating_points": {"scan": {"threshold": 0.5, "locked_at": locked}}}
    assert ("scan" in refusals(run)) is is_refused
