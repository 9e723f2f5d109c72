"""Configurations to runs: a YAML file names classes and arguments, constructors are its schema.

The seed is set before anything is built, so that the same file gives the same first weights.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from medssl.data.splits import check_seed
from medssl.data.store import Store
from medssl.errors import ConfigError, MedSSLError
from medssl.models.bundle import Bundle
from medssl.training.finetuning.finetune import finetune
from medssl.training.planning.cost import Plan
from medssl.training.pretraining.pretrain import pretrain
from medssl.training.ranks import join_step
from medssl.training.rebuild import check_source, recipe_of
from medssl.training.run import Run
from medssl.training.scale.cluster import Job, Slurm, Submitted, submit

Outcome = Bundle | Plan | Submitted | None
"""What a training command ends with; None in a process that helped another one."""

_FUNCTIONS: dict[str, Callable[..., Bundle | Plan | None]] = {"pretrain": pretrain, "finetune": finetune}
_OWN = ("out", "resume", "plan", "from_bundle", "cluster")  # where and how, not what


def launch_pretrain(args: list[str]) -> Bundle:
    """Run `medssl pretrain` with these arguments; returns the encoder bundle."""
    return _bundle(launch("pretrain", args))


def launch_finetune(args: list[str]) -> Bundle:
    """Run `medssl finetune` with these arguments; returns the bundle of the lesion network."""
    return _bundle(launch("finetune", args))


def _bundle(outcome: Outcome) -> Bundle:
    if not isinstance(outcome, Bundle):
        raise ConfigError("a bundle was asked for; take plan and cluster out of the arguments")
    return outcome


def _nothing(run: Path) -> None:
    """What follows a run by default."""


def launch(name: str, args: list[str], *, finish: Callable[[Path], None] = _nothing) -> Outcome:
    """Run a training command, here or on a cluster, or plan it.

    Args:
        name: `pretrain` or `finetune`.
        args: Its arguments.
        finish: Called with the run folder once a bundle was written.

    Raises:
        ConfigError: A key or a value that is not allowed.
    """
    parser = parser_of(_FUNCTIONS[name], name)
    settings = _settings(parser, _with_recipe(args, name), name)
    own = {key: settings.pop(key) for key in _OWN}
    text = parser.dump(Namespace(**{**_what(settings), "out": None, "resume": False}), skip_validation=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # sums in one order; Lightning sets it when a GPU has read it already
    L.seed_everything(settings.seed, verbose=False)
    arguments = {key: value for key, value in vars(_built(parser, settings)).items() if key != "config"}
    if own["from_bundle"] is not None:
        precision = arguments["training"].resolved_precision
        check_source(Path(own["from_bundle"]), Path(settings.feed.store), arguments.get("bundle"), precision)
    run = Run(Path(own["out"]), text, own["resume"], command=(name, *args), plan_only=own["plan"])
    training = arguments["training"]
    if own["cluster"] is not None and not own["plan"]:
        _check_before_queue(run, arguments)
        return submit(Job(name, tuple(args), own["out"], partial(launch, finish=finish)), Slurm(**vars(own["cluster"])), training)
    join_step(training.devices, training.num_nodes)
    outcome = _FUNCTIONS[name](**arguments, run=run)
    if isinstance(outcome, Bundle):
        finish(run.folder)
    return outcome


def _check_before_queue(run: Run, arguments: dict[str, Any]) -> None:
    """What would end the job at once is said before it waits in the queue."""
    feed = arguments["feed"]
    Store(feed.store)
    arguments["training"].check_batch(feed.batch_size)
    if arguments.get("bundle") is not None:
        Bundle.read(arguments["bundle"])
    if arguments.get("folds") is None:  # folds that are run one by one share a folder
        run.check()


def _settings(parser: ArgumentParser, args: list[str], name: str) -> Namespace:
    try:
        settings = parser.parse_args(args)
    except ArgumentError as error:
        raise ConfigError(f"{_one_line(error)}; see medssl {name} --help=full") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"a configuration is no text; give a YAML file to medssl {name} --config") from error
    check_seed(settings.seed)
    return settings


def _built(parser: ArgumentParser, settings: Namespace) -> Namespace:
    """The settings as objects; what a constructor refuses is said in its own words, not in those of the parser around it."""
    try:
        return cast(Namespace, parser.instantiate(settings))
    except ValueError as error:
        refused = error.__cause__ if isinstance(error.__cause__, MedSSLError) else error
        raise ConfigError(_one_line(refused)) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _what(settings: Namespace) -> dict[str, object]:
    """The settings without which folds are run now: folds of one configuration are one run, however they are shared out."""
    copied = settings.clone()
    if copied.get("folds") is not None:
        copied.folds.run = None
    return vars(copied)


def parser_of(function: Callable[..., object], name: str) -> ArgumentParser:
    """The parser of a training command: `--config FILE`, where and how it runs, and every argument of the function."""
    about = (function.__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog=f"medssl {name}", exit_on_error=False, allow_abbrev=False, description=about)
    parser.add_argument("--config", action="config", help="YAML file; options on the command line override it")
    parser.add_argument("--out", type=str, required=True, help="run folder")
    parser.add_argument("--resume", type=bool, default=False, help="go on from the newest checkpoint of the run folder")
    parser.add_argument("--plan", type=bool, default=False, help="estimate time and memory, run nothing, leave nothing")
    parser.add_argument("--from_bundle", type=str, default=None, help="a bundle to make again from its own bundle.json")
    parser.add_argument("--cluster", type=Slurm | None, default=None, help="a SLURM job to run it in; null runs it here")
    parser.add_function_arguments(function, skip={"run"}, fail_untyped=True)
    return parser


def _with_recipe(args: list[str], name: str) -> list[str]:
    """The arguments, with the recipe of a bundle in front where they ask for one, so that what follows overrides it."""
    arguments = [argument.replace("--from-bundle", "--from_bundle", 1) for argument in args]
    source = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    source.add_argument("--from_bundle")
    bundle = source.parse_known_args(arguments)[0].from_bundle
    if bundle is None:
        return arguments
    return ["--config", json.dumps(recipe_of(Path(bundle), name, _FUNCTIONS[name])), *arguments]
