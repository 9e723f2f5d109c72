"""How often these scans were looked at, and by which models, from the log that scoring keeps (`looks.jsonl`)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOG = "looks.jsonl"
_MODELS_SHOWN = 50


def looks_record(folder: Path, model_id: str) -> dict[str, Any]:
    """What the log of a results folder says.

    Returns:
        `is_logged`; `scored`, how often a model was run on these scans; `models`, with how often each; `reported`, how often these results
        met the answers again; `first` and `last` time; `earlier_models`, other models that were tried before; `unreadable` lines.
    """
    path = folder / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    looks = [_look(line) for line in lines]
    known = [look for look in looks if look is not None]
    scored = [look for look in known if look["event"] == "scored"]
    models: dict[str, int] = {}
    for look in scored:
        models[look["model_id"]] = models.get(look["model_id"], 0) + 1
    times = sorted(look["time"] for look in known)
    return {
        "is_logged": bool(scored),
        "scored": len(scored),
        "models": dict(list(models.items())[:_MODELS_SHOWN]),
        "n_models": len(models),
        "reported": sum(look["event"] == "reported" for look in known),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "other_models": len(models.keys() - {model_id}),
        "unreadable": len(looks) - len(known),
    }


def look_notes(looks: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of the looks."""
    if not looks["is_logged"]:
        yield "How often these scans were looked at before is not logged."
        return
    if looks["other_models"]:
        yield (
            f"{looks['n_models']} models were scored on these scans, {looks['scored']} times in all: the best of several is too good by "
            "chance, so no figure of a model that was chosen by them is an independent test."
        )
    if looks["unreadable"]:
        yield f"{looks['unreadable']} lines of the log of looks cannot be read; there may have been more looks."


def _look(line: str) -> dict[str, str] | None:
    try:
        look = json.loads(line)
        return {name: str(look[name]) for name in ("event", "model_id", "time")}
    except (ValueError, KeyError, TypeError):
        return None
