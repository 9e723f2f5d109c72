"""Arguments of a command, from the signature and the docstring of its function."""

import inspect
from collections.abc import Callable, Container, Sequence
from typing import Any

from medssl.errors import UsageError


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
        raise UsageError(f"{reason}; see medssl {command} --help") from error


def _spelled(arguments: Sequence[str], function: Callable[..., int]) -> list[str]:
    """`--allow-leakage` as `--allow_leakage`, a switch that stands alone as `--switch=true`, and `--option` of a list as `--option+`."""
    kinds = {f"--{name}": parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    switches = {name for name, kind in kinds.items() if kind is bool}
    lists = {name for name, kind in kinds.items() if "list[" in str(kind)}
    named = [_underscored(argument, lists) for argument in arguments]
    following = [*named, ""][1:]
    return [
        f"{name}=true" if name in switches and after not in ("true", "false") else name
        for name, after in zip(named, following, strict=True)
    ]


def _underscored(argument: str, lists: Container[str]) -> str:
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    name = "--" + name[2:].replace("-", "_")
    return name + ("+" if name in lists else "") + equals + value
