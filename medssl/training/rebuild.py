"""A bundle made again from its own `bundle.json`: the recipe in it, and the checks that its data are at hand."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medssl.data.store import Store
from medssl.errors import BundleError, ConfigError, ConflictError
from medssl.models.bundle import Bundle
from medssl.training.foreign_code import foreign_parts

logger = logging.getLogger(__name__)


def recipe_of(bundle: Path, command: str, function: Callable[..., object]) -> dict[str, Any]:
    """The configuration that a bundle was made with, without where its store lay.

    Args:
        bundle: The bundle.
        command: `pretrain` or `finetune`.
        function: What the command calls with it.

    Raises:
        BundleError: None in it, or it names what is not medssl's: a stranger's bundle runs no foreign code and reads no file.
        ConfigError: It was made by the other command.
    """
    described = Bundle.read(bundle)
    recipe = described.training.get("config")
    if not isinstance(recipe, dict):
        raise BundleError(f"bundle.json of {bundle.name} holds no recipe; it was made by an older medssl")
    if (described.kind == "encoder") != (command == "pretrain"):
        raise ConfigError(f"{bundle.name} is of kind {described.kind}; take medssl {'finetune' if command == 'pretrain' else 'pretrain'}")
    kept = _without_nulls(recipe)
    foreign = next(foreign_parts(kept, function), None)
    if foreign is not None:
        raise BundleError(f"the recipe in bundle.json of {bundle.name} holds {foreign!r}, which is not of this medssl; it is not run")
    return kept


def _without_nulls(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without views and masks of null, which older recipes had in place of a method's own."""
    kept = {name: part for name, part in recipe.items() if part is not None or name not in ("views", "masking")}
    return {name: _without_nulls(part) if isinstance(part, dict) else part for name, part in kept.items()}


def check_source(bundle: Path, store: Path, start: Path | None, precision: str) -> None:
    """Whether the data and the bundle to start from are those of a bundle.

    Another precision or number of threads than its own changes sums: it is named in the log.

    Raises:
        ConflictError: Other scans, another preprocessing, or another bundle to start from.
    """
    described, here = Bundle.read(bundle), Store(store)
    made, found = described.training.get("manifest_hash"), here.manifest.digest()
    if made != found:
        raise ConflictError(
            f"store {store.name} has manifest hash {found[:12]}, the bundle was made from {str(made)[:12]}; prepare its data"
        )
    if described.preprocess != here.preprocess:
        raise ConflictError(f"store {store.name} was prepared in another way than the bundle's; see preprocess in its bundle.json")
    origin = described.lineage[0] if described.lineage else None
    given = None if start is None else Bundle.read(start).model_id
    if origin != given:
        raise ConflictError(f"the bundle started from bundle {origin}, not from {given}; give the right one with --bundle")
    before = described.training.get("precision", precision)
    if before != precision:
        logger.warning("the bundle was made in %s, here is %s: weights will differ; see training.precision", before, precision)
    threads = described.training.get("threads")
    if threads is not None and threads != torch.get_num_threads():
        logger.warning(
            "the bundle was made with %s threads, here are %d: weights will be equal to rounding only", threads, torch.get_num_threads()
        )
