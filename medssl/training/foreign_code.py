"""What the recipe of a stranger may hold: classes of medssl, written as `class_path` and `init_args`, and plain values.

The parser of configurations imports a class that is given as a string, reads a file whose name is given in place of a class, and builds
classes where any value is allowed. Medssl writes no recipe so; one that is written so is told before the parser sees it.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints

_OURS = "medssl."
_WORD = re.compile(r"(\w[\w. -]*)?")  # no YAML within a string


def foreign_parts(recipe: dict[str, Any], function: Callable[..., object]) -> Iterator[str]:
    """What a recipe holds that is neither a plain value of an argument nor a class of medssl where one is expected.

    Args:
        recipe: Arguments of the function, as data.
        function: Whose annotations say what is expected.
    """
    yield from _of_arguments(recipe, get_type_hints(function))


def _of_arguments(arguments: dict[str, Any], hints: dict[str, Any]) -> Iterator[str]:
    for name, value in arguments.items():
        if name in hints:
            yield from _of_value(value, hints[name])
        else:
            yield str(name)


def _of_value(value: object, hint: object) -> Iterator[str]:
    classes = tuple(_classes(hint))
    if isinstance(value, list):
        for part in value:
            yield from _of_value(part, hint)
    elif isinstance(value, dict) and classes:
        yield from _of_class(value, classes)
    elif isinstance(value, dict):
        yield from (str(value[name]) for name in ("class_path", "__path__") if name in value)
        for part in value.values():
            yield from _of_value(part, Any)
    elif isinstance(value, str) and (classes or _holds_any(hint) and not _WORD.fullmatch(value)):
        yield value


def _of_class(fields: dict[str, Any], classes: tuple[type, ...]) -> Iterator[str]:
    """Of a class that is named, or of the arguments of the one that is expected."""
    if "class_path" not in fields:
        yield from _of_arguments(fields, {name: hint for expected in classes for name, hint in _hints(expected).items()})
        return
    found = _found(fields["class_path"], classes)
    if found is None:
        yield str(fields["class_path"])
        return
    yield from (name for name in fields if name not in ("class_path", "init_args"))
    yield from _of_arguments(fields.get("init_args") or {}, _hints(found))


def _found(class_path: object, classes: tuple[type, ...]) -> Callable[..., object] | None:
    """The class of medssl at a path, or the function that makes one; None where it is another's, or not one of those expected."""
    module, _, name = str(class_path).rpartition(".")
    if not module.startswith(_OURS) or "__" in module:
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    made = get_type_hints(found).get("return") if inspect.isfunction(found) else found
    if not (inspect.isclass(made) and issubclass(made, classes)):
        return None
    return found if callable(found) and found.__module__.startswith(_OURS) else None


def _hints(found: Callable[..., object]) -> dict[str, Any]:
    return get_type_hints(found.__init__ if inspect.isclass(found) else found)


def _classes(hint: object) -> Iterator[type]:
    """Classes of medssl in an annotation."""
    if inspect.isclass(hint) and hint.__module__.startswith(_OURS):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)


def _holds_any(hint: object) -> bool:
    """Whether an annotation takes values of any kind, or a mapping of them."""
    return hint in (Any, object) or get_origin(hint) in (dict, Mapping) or any(_holds_any(part) for part in get_args(hint))
