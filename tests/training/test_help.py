"""The short help of the training commands says what is so."""

import pytest

from medssl.assets import asset
from medssl.cli import main
from medssl.training.finetuning.finetune import finetune
from medssl.training.help import OPTIONS, short_help
from medssl.training.launch import parser_of
from medssl.training.pretraining.pretrain import pretrain

FUNCTIONS = {"pretrain": pretrain, "finetune": finetune}


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_option_of_the_short_help_is_one_of_the_command(command: str) -> None:
    known = parser_of(FUNCTIONS[command], command).format_help().split()
    assert [option for option, _ in OPTIONS[command] if option.split()[0] not in known] == []


@pytest.mark.parametrize("command", FUNCTIONS)
def test_the_short_help_names_every_recipe(command: str) -> None:
    recipes = [path.stem for path in asset(f"configs/{command}").rglob("*.yaml")]
    assert [name for name in recipes if name not in short_help(command)] == []


def test_the_full_help_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--help=full"])
    assert ended.value.code == 0
    assert "--training.warmup" in capsys.readouterr().out
