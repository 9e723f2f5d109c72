"""What import-linter cannot see: the parts that are not packages, and the size of files and functions."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ_RESULTS = ("report", "evaluation", "scoring.finding", "io", "volume", "cells", "errors", "viewer", "__version__")
MAY_IMPORT = {
    "app": tuple(f"medssl.{part}" for part in READ_RESULTS),
    "data_prep": ("medssl.data", "medssl.errors", "medssl.__version__"),
}
HEAVY = {"torch", "lightning", "pytorch_lightning", "monai", "torchmetrics"}
CODE = ("medssl", "app", "data_prep", "benchmarks")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module or member that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_part_outside_the_package_imports_only_what_the_table_allows(folder: str):
    strays = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(folder)
        for name in imported(path)
        if name.split(".")[0] == "medssl" and not is_below(name, MAY_IMPORT[folder])
    ]
    assert strays == []


def test_the_app_never_names_the_training_libraries():
    strays = [f"{path.relative_to(ROOT)}: {name}" for path in sources("app") for name in imported(path) if name.split(".")[0] in HEAVY]
    assert strays == []


def test_what_the_app_imports_does_not_load_torch_by_the_back_door():
    members = {name for path in sources("app") for name in imported(path) if name.startswith("medssl.")}
    modules = sorted({name.rpartition(".")[0] for name in members} - {"medssl"})
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_no_module_of_ours_is_a_landfill():
    assert [path.name for path in sources(*CODE) if path.stem in {"utils", "common", "misc", "helpers"}] == []


def test_no_file_is_longer_than_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*CODE)}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_50_lines():
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in sources(*CODE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= 50
    }
    assert long == {}
