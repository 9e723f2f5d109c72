"""A class of MONAI by its path, built with fresh weights; a bundle of a stranger can name nothing else."""

import importlib
import inspect
from typing import Any

from torch import nn

from medssl.errors import ConfigError

_MONAI = "monai.networks."
_FETCHING = {"pretrained": False, "weights": None, "checkpoint": None}  # arguments that read or download weights, some by default


def monai_class(class_path: str, *, below: str = _MONAI) -> type[nn.Module]:
    """A class of networks of MONAI.

    Args:
        class_path: Its import path.
        below: What the path starts with, within `monai.networks.`.

    Raises:
        ConfigError: Anything else.
    """
    module, _, name = class_path.rpartition(".")
    if not f"{module}.".startswith(below):
        raise ConfigError(f"network must be a class below {below.rstrip('.')}, got {class_path}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"MONAI has no {class_path}; look at its documentation") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__.startswith(_MONAI)):
        raise ConfigError(f"{class_path} is not a network of MONAI")
    return found


def build_monai(class_path: str, arguments: dict[str, Any], *, below: str = _MONAI) -> nn.Module:
    """A MONAI network with fresh weights; it loads none by itself.

    Raises:
        ConfigError: Not a network of MONAI, or arguments that do not fit it.
    """
    found = monai_class(class_path, below=below)
    wanted = [key for key, value in arguments.items() if value and ("pretrained" in key or key in _FETCHING)]
    if wanted:
        raise ConfigError(f"{wanted[0]} would fetch weights; load them from a file with medssl.models.foreign")
    silent = {key: value for key, value in _FETCHING.items() if key in inspect.signature(found).parameters}
    try:
        return found(**{**arguments, **silent})
    except (TypeError, ValueError, KeyError, AssertionError, ImportError) as error:
        raise ConfigError(f"{class_path} does not take these arguments: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())
