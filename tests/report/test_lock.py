import pytest

from medssl.report.lock import doubts, refusals


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


def point(**facts):
    return {"scan": {"threshold": 0.5, "locked_at": "2026-01-01T00:00:00", "evidence_sha256": "ab12"} | facts}


@pytest.mark.parametrize(
    ("started", "facts", "doubt"),
    [
        (None, {}, "when scoring began"),
        ("2026-01-02T00:00:00", {"locked_at": None}, "when an operating point was chosen"),
        ("2026-01-02T00:00:00", {"evidence_sha256": ""}, "a digest of the scores"),
    ],
)
def test_what_is_not_recorded_of_a_lock_is_a_doubt(started, facts, doubt):
    (said,) = doubts({"started": started, "operating_points": point(**facts)})
    assert said.startswith(f"Not recorded: {doubt}")


@pytest.mark.parametrize("points", [{}, point()])
def test_a_lock_that_is_recorded_whole_and_no_threshold_at_all_leave_no_doubt(points):
    assert doubts({"started": "2026-01-02T00:00:00", "operating_points": points}) == []
