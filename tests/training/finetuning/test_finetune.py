"""What a fine-tuning run does behind its last step."""

from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from medssl.data.dataset import Case
from medssl.models.architecture import Network
from medssl.training.finetuning import finetune
from medssl.training.launch import launch_finetune
from medssl.training.validation.points import Asked, Scored
from tests.training.test_launch import finetune_config

CHOSEN = torch.device("cpu:0")  # tensors call it cpu, so that it is told from where they were by whoever asks for it alone


@pytest.mark.parametrize("options", [[], ["--protocol", "knn", "--tuning.bank", "64"], ["--folds.count", "2"]])
def test_validation_runs_on_the_device_that_trains(
    tmp_path: Path, store: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, validated, to, score = [], [], nn.Module.to, finetune.score_cases

    def noted(module: nn.Module, *where: torch.device) -> nn.Module:
        moved.extend([module] * (where == (CHOSEN,)))
        return to(module, *where)

    def scored(network: Network, *given: Any, **how: Any) -> list[Scored]:  # noqa: ANN401
        validated.append(any(module is network for module in moved))
        return score(network, *given, **how)

    monkeypatch.setattr(nn.Module, "to", noted)
    monkeypatch.setattr(finetune, "own_device", lambda: CHOSEN)
    monkeypatch.setattr(finetune, "score_cases", scored)
    config = finetune_config(tmp_path, store, "decoder.ViTSegmenter", None)
    launch_finetune([*config, *options, "--out", str(tmp_path / "run")])
    assert validated == [True] * (2 if "--folds.count" in options else 1)


@pytest.mark.parametrize("options", [["--folds.count", "2"], ["--selection.metric", "dice", "--selection.every_steps", "1"]])
def test_no_more_than_one_map_of_a_scan_is_held_at_a_time(
    tmp_path: Path, store: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, alive, of = list[ref[NDArray[np.float32]]](), list[int](), Scored.of

    def counted(network: Network, case: Case, channels: NDArray[np.float32], asked: Asked) -> Scored:
        maps.append(ref(channels))
        alive.append(sum(one() is not None for one in maps))
        return of(network, case, channels, asked)

    monkeypatch.setattr(Scored, "of", counted)
    config = finetune_config(tmp_path, store, "decoder.ViTSegmenter", None)
    launch_finetune([*config, *options, "--out", str(tmp_path / "run")])
    assert len(alive) > 2
    assert set(alive) == {1}
