import contextlib
import os
from pathlib import Path

import pytest

from medssl.errors import BundleError
from medssl.training.checkpoints import WholeFiles, newest


class Killed(BaseException):
    """Stands for SIGKILL: nothing behind it runs but what the kernel keeps."""


def save(folder: Path, step: int) -> None:
    WholeFiles().save_checkpoint({"global_step": step}, folder / "last.ckpt")


@pytest.mark.parametrize("survived", range(5))
def test_a_kill_at_any_moment_of_writing_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    calls = iter(range(100))

    def dying(function):  # type: ignore[no-untyped-def]
        def call(*args: object) -> object:
            if next(calls) == survived:
                raise Killed
            return function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(Path, "replace", dying(Path.replace))
        with contextlib.suppress(Killed):
            save(tmp_path, 3)
    path, step = newest(tmp_path)
    assert path is not None
    assert step in (2, 3)


def test_the_one_before_serves_where_the_newest_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    assert newest(tmp_path) == (tmp_path / "before.ckpt", 1)


def test_damaged_checkpoints_are_said(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(BundleError, match="damaged"):
        newest(tmp_path)


def test_a_run_without_a_checkpoint_starts_at_0(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, 0)
