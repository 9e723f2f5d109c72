"""Configurations to runs: a YAML file names classes and arguments, constructors are its schema.

The seed is set before anything is built, so that the same file gives the same first weights.
"""

from collections.abc import Callable
from pathlib import Path

import lightning as L
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from medssl.errors import ConfigError
from medssl.models.bundle import Bundle
from medssl.training.finetune import finetune
from medssl.training.pretrain import pretrain
from medssl.training.run import Run


def launch_pretrain(args: list[str]) -> Bundle:
    """Run `medssl pretrain` with these arguments; returns the encoder bundle."""
    return _launch(pretrain, "pretrain", args)


def launch_finetune(args: list[str]) -> Bundle:
    """Run `medssl finetune` with these arguments; returns the bundle of the lesion network."""
    return _launch(finetune, "finetune", args)


def _launch(function: Callable[..., Bundle], name: str, args: list[str]) -> Bundle:
    parser = parser_of(function, name)
    try:
        settings = parser.parse_args(args)
    except ArgumentError as error:
        raise ConfigError(f"{' '.join(str(error).split())}; see medssl {name} --help") from error
    out, resume = Path(settings.pop("out")), bool(settings.pop("resume"))
    text = parser.dump(Namespace(**{**vars(settings.clone()), "out": None, "resume": False}), skip_validation=True)
    L.seed_everything(settings.seed, verbose=False)
    built = parser.instantiate(settings)
    arguments = {key: value for key, value in vars(built).items() if key != "config"}
    return function(**arguments, run=Run(out, text, resume))


def parser_of(function: Callable[..., Bundle], name: str) -> ArgumentParser:
    """The parser of a training command: `--config FILE`, `--out`, `--resume`, and every argument of the function."""
    about = (function.__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog=f"medssl {name}", exit_on_error=False, allow_abbrev=False, description=about)
    parser.add_argument("--config", action="config", help="YAML file; options on the command line override it")
    parser.add_argument("--out", type=str, required=True, help="run folder")
    parser.add_argument("--resume", type=bool, default=False, help="go on from the newest checkpoint of the run folder")
    parser.add_function_arguments(function, skip={"run"}, fail_untyped=True)
    return parser
