"""Arguments of commands as they are typed."""

from pathlib import Path

import pytest

from medssl.arguments import parsed
from medssl.cli import COMMANDS, demo, main, report
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


@pytest.mark.parametrize("said", ["true", "True", "TRUE"])
def test_a_switch_takes_true_however_it_is_written(said: str) -> None:
    assert parsed(demo, ["--keep-together", said], "demo")["keep_together"] is True


@pytest.mark.parametrize("arguments", [["--keep-together", "perhaps"], ["--keep_together=perhaps"]])
def test_a_switch_with_another_word_says_what_it_takes(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="--keep_together takes true or false, got perhaps"):
        parsed(demo, arguments, "demo")


def test_a_word_behind_a_switch_that_was_not_refused_is_left_alone() -> None:
    with pytest.raises(UsageError, match=r"^unrecognized arguments: --bogus; see"):
        parsed(report, ["--pdf", "results", "--bogus"], "report")
