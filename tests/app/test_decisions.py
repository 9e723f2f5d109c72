"""Decisions are kept, whatever happens."""

import sqlite3
from dataclasses import replace

import pandas as pd
import pytest

from decisions import Decision, NotSavedError, connected, current, read_decisions, safe_csv, save_decision
from medssl.errors import NoSpaceError

ANSWER = Decision(scan="case_a", reviewer="AB", verdict="agree", confidence=80, comment="", model_id="m")


def test_two_reviewers_of_one_scan_are_two_standing_rows(tmp_path):
    path = tmp_path / "review.sqlite"
    save_decision(path, ANSWER)
    save_decision(path, replace(ANSWER, reviewer="CD", verdict="disagree"))
    standing = current(read_decisions(path))
    assert sorted(zip(standing["reviewer"], standing["verdict"], strict=True)) == [("AB", "agree"), ("CD", "disagree")]


def test_a_change_of_mind_is_a_new_row_that_names_the_old_one(tmp_path):
    path = tmp_path / "review.sqlite"
    first = save_decision(path, ANSWER)
    second = save_decision(path, replace(ANSWER, verdict="uncertain"))
    rows = read_decisions(path)
    assert len(rows) == 2
    assert rows.set_index("id").loc[second, "supersedes"] == first
    assert current(rows)["verdict"].tolist() == ["uncertain"]


@pytest.mark.parametrize("statement", ["UPDATE decisions SET verdict = 'disagree'", "DELETE FROM decisions"])
def test_the_database_refuses_to_change_or_remove_a_row(tmp_path, statement):
    path = tmp_path / "review.sqlite"
    save_decision(path, ANSWER)
    with connected(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert read_decisions(path)["verdict"].tolist() == ["agree"]


def test_a_row_cannot_supersede_the_decision_of_another_reviewer(tmp_path):
    path = tmp_path / "review.sqlite"
    number = save_decision(path, ANSWER)
    columns = "(scan, reviewer, verdict, confidence, comment, at, supersedes, model_id)"
    with connected(path) as connection, pytest.raises(sqlite3.IntegrityError, match="same reviewer"):
        connection.execute(f"INSERT INTO decisions {columns} VALUES ('case_a', 'CD', 'agree', 5, '', '', {number}, 'm')")


def test_the_database_writes_ahead_and_syncs_fully(tmp_path):
    with connected(tmp_path / "review.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


@pytest.mark.parametrize("change", [{"reviewer": "  "}, {"verdict": "maybe"}, {"confidence": 101}])
def test_an_answer_that_breaks_a_rule_is_not_saved(tmp_path, change):
    path = tmp_path / "review.sqlite"
    with pytest.raises(NotSavedError, match="not saved"):
        save_decision(path, replace(ANSWER, **change))
    assert read_decisions(path).empty


def test_a_full_disk_is_told_and_earlier_rows_stay(tmp_path, monkeypatch):
    path = tmp_path / "review.sqlite"
    save_decision(path, ANSWER)
    real = sqlite3.connect

    def connect_small(*place, **settings):
        connection = real(*place, **settings)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_small)
    with pytest.raises(NoSpaceError, match="not saved"):
        save_decision(path, replace(ANSWER, comment="x" * 100_000))
    monkeypatch.undo()
    assert len(read_decisions(path)) == 1


def test_a_file_that_is_no_database_is_told(tmp_path):
    path = tmp_path / "review.sqlite"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(NotSavedError, match="cannot be read"):
        read_decisions(path)


def test_no_database_reads_as_no_decisions_and_makes_no_file(tmp_path):
    assert read_decisions(tmp_path / "review.sqlite").empty
    assert not (tmp_path / "review.sqlite").exists()


def test_exported_text_cannot_run_as_a_formula():
    text = safe_csv(pd.DataFrame({"comment": ["=1+1", "@sum", "fine"], "confidence": [1, 2, -3]})).decode()
    assert text.splitlines() == ["comment,confidence", "'=1+1,1", "'@sum,2", "fine,-3"]


def test_decisions_in_a_folder_that_cannot_be_written_are_read(tmp_path, monkeypatch):
    path = tmp_path / "review.sqlite"
    save_decision(path, ANSWER)
    monkeypatch.setattr("decisions.os.access", lambda *_: False)
    before = sorted(file.name for file in tmp_path.iterdir())
    assert read_decisions(path)["verdict"].tolist() == [ANSWER.verdict]
    assert sorted(file.name for file in tmp_path.iterdir()) == before
