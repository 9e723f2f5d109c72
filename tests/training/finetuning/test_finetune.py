"""What a fine-tuning run does behind its last step."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.data.dataset import Case
from medssl.models.architecture import Network
from medssl.models.inference import Window
from medssl.training.finetuning import finetune
from medssl.training.launch import launch_finetune
from medssl.training.validation.points import Scored
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

    def scored(network: Network, cases: Sequence[Case], window: Window) -> list[Scored]:
        validated.append(any(module is network for module in moved))
        return score(network, cases, window)

    monkeypatch.setattr(nn.Module, "to", noted)
    monkeypatch.setattr(finetune, "own_device", lambda: CHOSEN)
    monkeypatch.setattr(finetune, "score_cases", scored)
    config = finetune_config(tmp_path, store, "decoder.ViTSegmenter", None)
    launch_finetune([*config, *options, "--out", str(tmp_path / "run")])
    assert validated == [True] * (2 if "--folds.count" in options else 1)
