"""The method that docs/pretraining.md shows."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from medssl.models.vit import ViT
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def block(root: Path, language: str, number: int = 0) -> str:
    text = (root / "docs" / "pretraining.md").read_text(encoding="utf-8")
    return str(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[number])


def test_the_method_in_the_docs_learns(root: Path) -> None:
    names: dict[str, type] = {"__name__": "medssl.objectives.agreement"}  # type: ignore[dict-item]
    exec(block(root, "python"), names)
    objective = names["Agreement"](ViT((4, 4), width=8, depth=1, heads=2))
    objective(Batch.of(torch.randn(2, 1, 8, 8), Streams.of(0, range(2)))).total.backward()
    assert objective.encoder.embed.weight.grad.abs().sum() > 0


def test_the_configuration_in_the_docs_names_it(root: Path) -> None:
    assert yaml.safe_load(block(root, "yaml"))["objective"]["class_path"] == "medssl.objectives.agreement.Agreement"


def test_the_test_in_the_docs_passes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("medssl.objectives.agreement")
    exec(block(root, "python"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names: dict[str, Callable[[], None]] = {}
    exec(block(root, "python", 1), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()
