"""The folder `robustness` of a results folder: which scans were damaged and repeated, and what the model said of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from medssl.errors import ManifestError
from medssl.evaluation.robustness import Outcome

FORMAT = 1
CLEAN = "clean_clean.json"

Outcomes = tuple[Outcome, ...]


@dataclass(frozen=True)
class Panel:
    """Outcomes by condition.

    Args:
        facts: `panel.json`: scans, draw, and every condition with its file.
        done: The outcomes of each condition that was run to its end, by file name.
    """

    facts: Mapping[str, Any]
    done: Mapping[str, Outcomes]

    def pair(self, file: str) -> tuple[Outcomes, Outcomes]:
        """The clean outcomes and those of a condition, of the scans that have both, in one order."""
        clean = {outcome.scan_id: outcome for outcome in self.done[CLEAN]}
        shown = [outcome for outcome in self.done[file] if outcome.scan_id in clean]
        return tuple(clean[outcome.scan_id] for outcome in shown), tuple(shown)

    def without_dice(self) -> Self:
        """The panel without any number of masks, whose threshold is refused."""
        return replace(self, done={file: tuple(replace(one, dice=None) for one in found) for file, found in self.done.items()})


def read_panel(results: Path, model_id: str) -> Panel | None:
    """The panel of a results folder; None where none was run, where the clean scans are not done, or where it is of another model.

    Raises:
        ManifestError: A file of it is damaged.
    """
    folder = results / "robustness"
    if not (folder / "panel.json").is_file():
        return None
    facts = _read(folder / "panel.json")
    if facts.get("format") != FORMAT or facts.get("model_id") != model_id:
        return None
    done = {}
    for condition in facts["conditions"]:
        path = folder / Path(condition["file"]).name
        record = _read(path) if path.is_file() else {}
        if record.get("key") == condition["key"]:
            done[condition["file"]] = tuple(Outcome.from_dict(fields) for fields in record["outcomes"])
    return Panel(facts, done) if CLEAN in done else None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError("bad_header", f"robustness/{path.name} is damaged; delete it and run medssl evaluate again") from error
    if not isinstance(record, dict):
        raise ManifestError("bad_header", f"robustness/{path.name} is damaged; delete it and run medssl evaluate again")
    return record
