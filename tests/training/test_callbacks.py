import io
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from rich.console import Console

from medssl.data.unlabelled import Unlabelled
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training import callbacks
from medssl.training.callbacks import Every, Pictures, ProgressLine
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.settings import Training


def crops(count: int = 2) -> Unlabelled:
    known = torch.ones(count, 1, 1)
    return Unlabelled(
        image=torch.randn(count, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        number=torch.arange(count),
        patient=torch.arange(count),
        corner=torch.zeros(count, 1, 2),
        level=-9 * known,
        present=known.bool(),
        text=torch.zeros(count, 4, dtype=torch.uint8),
    )


def pretrainer() -> Pretrainer:
    torch.manual_seed(0)
    encoder = ViT((4, 4), width=16, depth=2, heads=2, drop_path=0.9)
    return Pretrainer(MAE(encoder, decoder_width=16, decoder_depth=1), Training(), seed=0)


def idle_trainer() -> L.Trainer:
    return L.Trainer(max_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")


def drawn(module: Pretrainer, folder: Path) -> bytes:
    """The picture of step 0."""
    Pictures(crops(), folder, seed=0, every=1).on_train_batch_end(idle_trainer(), module, None, None, 0)
    return (folder / "step000000.png").read_bytes()


def test_a_picture_of_the_same_weights_is_the_same_whatever_paths_training_drops(tmp_path: Path) -> None:
    module = pretrainer().train()
    torch.manual_seed(1)
    first = drawn(module, tmp_path)
    torch.manual_seed(2)
    assert drawn(module, tmp_path) == first


def test_a_picture_leaves_the_mode_of_training(tmp_path: Path) -> None:
    module = pretrainer().train()
    drawn(module, tmp_path)
    assert all(part.training for part in module.modules())


def test_the_numbers_of_samples_stay_on_the_processor_when_a_batch_goes_to_a_device() -> None:
    there = pretrainer().transfer_batch_to_device(crops(), torch.device("meta"), 0)
    assert {name for name, value in there.items() if value.device.type == "cpu"} == {"number"}


def test_the_bar_reads_the_loss_now_and_then_as_every_reading_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, trainer, readings = ProgressLine("MAE", every=1000), idle_trainer(), list[L.Trainer]()
    trainer.accumulate_grad_batches = 2  # parts of a step, behind which no log line is due
    monkeypatch.setattr(callbacks, "_terms", lambda asked: readings.append(asked) or "")
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=iter([1.0, 1.0, 1.1, 1.2, 2.0, 2.0]).__next__))
    for _ in range(4):
        bar.on_train_batch_end(trainer, pretrainer(), None, None, 0)
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


def test_the_bar_of_pretraining_names_the_method() -> None:
    assert pretrainer().title == "MAE"


@pytest.mark.parametrize(("steps", "done", "left"), [(10, 0, 3), (10, 4, 2), (10, 9, 1), (10, 10, 0), (8, 4, 1), (3, 0, 1)])
def test_what_is_due_every_so_many_steps_is_due_behind_the_last_one_too(steps: int, done: int, left: int) -> None:
    assert Every(4).left(steps, done=done) == left
