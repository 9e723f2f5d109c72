"""What no results folder can know and a study has to state itself: `study.json` beside the results, one sentence a key."""

import json
from collections.abc import Mapping
from pathlib import Path

from medssl.errors import ManifestError

STATEMENTS = {
    "intended_use": "intended use and clinical role",
    "intended_users": "intended users and setting",
    "design": "study design (prospective or retrospective), dates and places",
    "eligibility": "who was eligible, and how scans were chosen",
    "data_source": "where the scans come from",
    "acquisition": "how the scans were acquired",
    "sample_size": "how the size of the study was decided",
    "reference_standard": "reference standard and why it was chosen",
    "readers": "who made the reference standard: how many readers, their experience",
    "adjudication": "how disagreement of readers was settled",
    "agreement": "agreement of readers (kappa with its interval)",
    "external_test": "what makes the test scans external to training",
    "explainability": "how calls of the model are explained",
    "limitations": "limitations of the study, and whom its results do not speak for",
    "implications": "what the results mean for practice",
    "ethics": "ethical approval and consent",
    "registration": "registration",
    "protocol": "protocol",
    "availability": "availability of data, code and model",
    "funding": "funding and conflicts of interest",
}
_LONGEST = 2000


def read_study(path: Path) -> dict[str, str]:
    """The statements of a study, in the order of `STATEMENTS`; none where there is no file.

    Raises:
        ManifestError: `encoding` or `bad_row` when the file is no flat JSON object of known keys and sentences.
    """
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ManifestError("encoding", f"{path.name} is not UTF-8; save it as UTF-8") from error
    except ValueError as error:
        raise ManifestError("bad_row", f'{path.name} is no JSON; write an object such as {{"readers": "two radiologists"}}') from error
    return _checked(said, path.name)


def _checked(said: object, name: str) -> dict[str, str]:
    if not isinstance(said, Mapping):
        raise ManifestError("bad_row", f'{name} holds no object; write one sentence a key, such as {{"readers": "two radiologists"}}')
    strange = [key for key in said if key not in STATEMENTS]
    if strange:
        raise ManifestError("bad_row", f"{name} has {len(strange)} keys that are not known; allowed are {', '.join(STATEMENTS)}")
    texts = {key: said[key] for key in STATEMENTS if said.get(key)}
    if any(not isinstance(text, str) or len(text) > _LONGEST for text in texts.values()):
        raise ManifestError("bad_row", f"{name} has a value that is no text of at most {_LONGEST} characters; write a sentence")
    return texts
