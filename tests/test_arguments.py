"""Arguments of commands as they are typed."""

from pathlib import Path

import pytest

from medssl.arguments import parsed
from medssl.cli import COMMANDS, demo, main
from medssl.errors import UsageError


def test_demo_needs_no_argument() -> None:
    assert parsed(demo, [], "demo")["out"] == Path("demo-run")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_every_other_command_without_an_argument_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == UsageError.exit_code
    line = capsys.readouterr().err
    assert line.startswith("medssl: ")
    assert f"see medssl {command} --help" in line


def test_a_switch_stands_alone_at_the_end_too() -> None:
    assert parsed(demo, ["--keep-together"], "demo")["keep_together"] is True
