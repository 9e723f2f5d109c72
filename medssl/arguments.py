"""Arguments of a command, from the signature and the docstring of its function."""

import inspect
from collections.abc import Callable, Container, Sequence
from typing import Any

from medssl.errors import UsageError

_SAID = ("true", "false")  # of a switch


def parsed(function: Callable[..., int], arguments: Sequence[str], command: str) -> dict[str, Any]:
    """What a function is to be called with.

    Args:
        function: Its parameters without default are positional, the others options.
        arguments: As they were typed.
        command: Its name, for help and errors.

    Raises:
        UsageError: An argument that the function does not take.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    about = (function.__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog=f"medssl {command}", exit_on_error=False, allow_abbrev=False, description=about)
    parser.add_function_arguments(function, as_positional=True)
    try:
        return vars(parser.parse_args(_spelled(arguments, function)))
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{reason}{_hint(reason, arguments, function)}; see medssl {command} --help") from error


def _spelled(arguments: Sequence[str], function: Callable[..., int]) -> list[str]:
    """`--allow-leakage` as `--allow_leakage`, a switch that stands alone as `--switch=true`, and `--option` of a list as `--option+`."""
    kinds, switches = _kinds(function), _switches(function)
    lists = {name for name, kind in kinds.items() if "list[" in str(kind)}
    named = [_underscored(argument, lists) for argument in arguments]
    following = [*named, ""][1:]
    return [
        f"{name}=true" if name in switches and after.lower() not in _SAID else name for name, after in zip(named, following, strict=True)
    ]


def _kinds(function: Callable[..., int]) -> dict[str, Any]:
    """The annotation of each option."""
    return {f"--{name}": parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}


def _switches(function: Callable[..., int]) -> set[str]:
    return {name for name, kind in _kinds(function).items() if kind is bool}


def _hint(reason: str, arguments: Sequence[str], function: Callable[..., int]) -> str:
    """What a switch takes, where the word behind it is the one that was refused."""
    spelled = [_underscored(argument, ()).partition("=") for argument in arguments]
    following = [*(name for name, _, _ in spelled), ""][1:]
    for (name, _, value), after in zip(spelled, following, strict=True):
        if name in _switches(function) and (value or after) in reason.split():
            return f"; {name} takes true or false, got {value or after}"
    return ""


def _underscored(argument: str, lists: Container[str]) -> str:
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    name = "--" + name[2:].replace("-", "_")
    return name + ("+" if name in lists else "") + equals + value
