import io
import signal
from types import SimpleNamespace

import lightning as L
import pytest
from rich.console import Console

from medssl.training import callbacks
from medssl.training.callbacks import Every, ProgressLine, Terminated


def idle_trainer() -> L.Trainer:
    return L.Trainer(max_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")


def test_the_bar_reads_the_loss_now_and_then_as_every_reading_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, trainer, readings = ProgressLine("MAE", every=1000), idle_trainer(), list[L.Trainer]()
    trainer.accumulate_grad_batches = 2  # parts of a step, behind which no log line is due
    monkeypatch.setattr(callbacks, "_terms", lambda asked: readings.append(asked) or "")
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=iter([1.0, 1.0, 1.1, 1.2, 2.0, 2.0]).__next__))
    for _ in range(4):
        bar.on_train_batch_end(trainer, L.LightningModule(), None, None, 0)
    assert len(readings) == 2


def printed(bar: ProgressLine, *, done: int, terms: str) -> str:
    """What a terminal of 80 columns shows after so many of 100 steps."""
    bar.bar.update(bar.task, total=100, completed=done, terms=terms)
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(bar.bar.get_renderable())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_bar_of_a_run_that_is_finished_says_no_time_left() -> None:
    assert "left" in printed(ProgressLine("MAE", every=1), done=50, terms="")
    assert "left" not in printed(ProgressLine("MAE", every=1), done=100, terms="")


@pytest.mark.parametrize("done", [50, 100])
def test_three_terms_are_shown_whole_on_a_terminal_of_80_columns(done: int) -> None:
    terms = "dino 1.2345, target_entropy 2.3456, used_entropy 3.4567"
    shown = printed(ProgressLine("DINO", every=1), done=done, terms=terms)
    assert all(word in shown.split() for word in [*terms.split(), "DINO", f"{done}/100"])
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(("steps", "done", "left"), [(10, 0, 3), (10, 4, 2), (10, 9, 1), (10, 10, 0), (8, 4, 1), (3, 0, 1)])
def test_what_is_due_every_so_many_steps_is_due_behind_the_last_one_too(steps: int, done: int, left: int) -> None:
    assert Every(4).left(steps, done=done) == left


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_sigterm_ends_a_run_as_it_was_to_before_the_training_began(before: signal.Handlers) -> None:
    found = signal.signal(signal.SIGTERM, before)
    try:
        terminated = Terminated()
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("Lightning's way"))
        terminated.on_train_start(idle_trainer(), L.LightningModule())
        if before == signal.SIG_DFL:
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(signal.SIGTERM)
            assert ended.value.code == 143
        else:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, found)
