"""Tasks in processes of their own."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medssl.errors import ConfigError, ScanError
from medssl.workers import Crash, Pool


def double(number: int) -> int:
    return 2 * number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(place: str) -> str:
    path = Path(place)
    if path.name == "0" and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def refuse(number: int) -> int:
    raise ScanError("truncated", f"scan {number} ends early")


def break_down(number: int) -> int:
    return 1 // (number * 0)


def pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def own_pid(_: int) -> int:
    return os.getpid()


def spread(function: Callable[[Any], Any], tasks: Sequence[Any], patience_s: float = 0.0) -> dict[int, Any]:
    with Pool(2, patience_s=patience_s) as pool:
        return dict(pool.spread(function, tasks))


def test_every_task_is_done_once_in_other_processes() -> None:
    assert spread(double, range(12)) == {number: 2 * number for number in range(12)}
    assert os.getpid() not in spread(pid, range(12)).values()


def test_processes_start_only_where_more_is_left_than_patience_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.workers.time", SimpleNamespace(monotonic=itertools.count().__next__))  # a second a task
    assert set(spread(own_pid, range(6), patience_s=4.5).values()) == {os.getpid()}
    assert set(spread(own_pid, range(12), patience_s=4.5).values()) != {os.getpid()}


def test_a_worker_imports_nothing_from_the_folder_in_which_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert spread(double, range(3)) == {0: 0, 1: 2, 2: 4}


def test_what_is_done_soon_needs_no_process() -> None:
    assert set(spread(pid, range(3), patience_s=60).values()) == {os.getpid()}


def test_what_takes_longer_is_spread() -> None:
    assert len(set(spread(pid, range(40), patience_s=0.2).values())) == 3


def test_processes_stay_for_the_next_function() -> None:
    with Pool(2, patience_s=0.0) as pool:
        first, second = ({process for _, process in pool.spread(pid, range(8))} for _ in range(2))
    assert first == second


def test_a_task_that_kills_its_process_twice_is_told_and_the_others_are_done() -> None:
    done = spread(die_at_three, range(9))
    assert isinstance(done.pop(3), Crash)
    assert done == {number: number for number in range(9) if number != 3}


def test_a_task_whose_process_was_killed_is_tried_again(tmp_path: Path) -> None:
    done = spread(die_once, [str(tmp_path / str(number)) for number in range(8)])
    assert sorted(done.values()) == list("01234567")


def test_an_error_of_the_library_arrives_as_it_was_raised() -> None:
    with pytest.raises(ScanError, match=r"^truncated: scan \d ends early$") as caught:
        spread(refuse, range(8))
    assert caught.value.code == "truncated"


def test_a_bug_arrives_with_its_trace() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        spread(break_down, range(8))


def test_no_worker_outlives_a_run_that_was_stopped() -> None:
    with Pool(2, patience_s=0.0) as pool:
        run = pool.spread(pid, range(40))
        workers = {next(run)[1] for _ in range(8)}
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_no_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="workers must be >= 1"):
        Pool(0)
