"""Files that are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from medssl import files
from medssl.errors import NoSpaceError, UsageError
from medssl.files import refusal, remove_leftovers, write_new, write_text, write_whole


def test_a_writer_that_is_stopped_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    def parts():
        yield b"half"
        raise InterruptedError

    write_whole(tmp_path / "a", [b"old"])
    with pytest.raises(InterruptedError):
        write_whole(tmp_path / "a", parts())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    write_whole(tmp_path / "a", [b"old"])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError):
        write_whole(tmp_path / "a", [b"new"])
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write a into file: .*; give another place"):
        write_whole(tmp_path / "file" / "a", [b"x"])


def test_what_the_system_refuses_names_the_file_without_its_folder() -> None:
    error = refusal(PermissionError(errno.EACCES, "Permission denied", "/home/someone/scans"))
    assert error.exit_code == UsageError.exit_code
    assert str(error).startswith("cannot use scans: Permission denied; ")


def test_what_the_system_refuses_without_a_word_names_its_kind() -> None:
    assert "cannot use a file: ConnectionResetError; " in str(refusal(ConnectionResetError()))


def test_the_content_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target))[1])
    write_whole(tmp_path / "a", [b"x"])
    assert order == ["fsync", "rename", "fsync"]


def test_the_first_of_two_writers_of_a_new_file_wins(tmp_path: Path) -> None:
    assert write_new(tmp_path / "a", [b"first"])
    assert not write_new(tmp_path / "a", [b"second"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]


def test_the_rest_of_a_killed_writer_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    host = files._host()
    dead, alive = tmp_path / f".a.{host}-99999999-01234567.tmp", tmp_path / f".a.{host}-{os.getpid()}-01234567.tmp"
    elsewhere = tmp_path / ".a.00000000-99999999-01234567.tmp"
    for path in (dead, alive, elsewhere):
        path.touch()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere])


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.csv", "ä,1\n")
    assert (tmp_path / "new" / "a.csv").read_bytes() == "ä,1\n".encode()
