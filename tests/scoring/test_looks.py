import json
from pathlib import Path

import pytest

from medssl.scoring.looks import LOG, Look, log_look, log_report


def look(split: str = "test", model_id: str = "m1", event: str = "scored") -> Look:
    points: dict[str, dict[str, object]] = {"scan": {"threshold": 0.4, "rule": "youden"}}
    return Look.now(event, model_id=model_id, split=split, scans=3, manifest_sha256="abc", points=points)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_a_look_is_written_at_the_store_and_in_the_results(tmp_path: Path) -> None:
    log_look(look(), store=tmp_path / "store", results=tmp_path / "a")
    assert lines(tmp_path / "store") == lines(tmp_path / "a")
    assert lines(tmp_path / "a")[0] | {"time": ""} == {
        **{"event": "scored", "model_id": "m1", "split": "test", "scans": 3, "manifest_sha256": "abc", "time": ""},
        "thresholds": {"scan": 0.4},
    }


def test_results_of_a_later_model_know_the_looks_of_earlier_ones(tmp_path: Path) -> None:
    log_look(look(model_id="m1"), store=tmp_path / "store", results=tmp_path / "a")
    log_look(look(model_id="m2"), store=tmp_path / "store", results=tmp_path / "b")
    assert [one["model_id"] for one in lines(tmp_path / "b")] == ["m1", "m2"]
    assert [one["model_id"] for one in lines(tmp_path / "a")] == ["m1"]


def test_a_second_look_adds_one_line_and_changes_none(tmp_path: Path) -> None:
    log_look(look(), store=tmp_path / "store", results=tmp_path / "a")
    before = (tmp_path / "a" / LOG).read_text()
    log_look(look(), store=tmp_path / "store", results=tmp_path / "a")
    assert (tmp_path / "a" / LOG).read_text().startswith(before) and len(lines(tmp_path / "a")) == 2


def test_looks_at_other_splits_are_none_at_these_scans_but_looks_at_all_are(tmp_path: Path) -> None:
    for split in ("val", "all", "test"):
        log_look(look(split=split), store=tmp_path / "store", results=tmp_path / split)
    assert [one["split"] for one in lines(tmp_path / "test")] == ["all", "test"]


def test_a_store_that_cannot_be_written_to_costs_no_look_in_the_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LOG).mkdir()
    log_look(look(), store=tmp_path / "store", results=tmp_path / "a")
    assert len(lines(tmp_path / "a")) == 1 and "is not counted" in caplog.text


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LOG).symlink_to(tmp_path / "elsewhere")
    log_look(look(), store=tmp_path / "store", results=tmp_path / "a")
    assert not (tmp_path / "elsewhere").exists()


def test_a_report_with_answers_is_a_look_too(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"model_id": "m1", "split": "test"}')
    log_report(tmp_path, None)
    assert not (tmp_path / LOG).exists()
    (tmp_path / "reference.csv").write_text("scan_id,label\n")
    log_report(tmp_path, None)
    assert (lines(tmp_path)[0]["event"], lines(tmp_path)[0]["model_id"]) == ("reported", "m1")
