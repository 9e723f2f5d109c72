"""What happens to each tag: PS3.15 Table E.1-1 (edition 2026c) as a file, and the rules for tags that it does not name.

`table.tsv` has a row a tag: what the Basic Profile asks for (`-` where the table has no such tag), and the one action that
is taken here. Where the profile leaves a choice, the action keeps the object whole: a text becomes empty or a dummy, a sequence is
removed. Dates and times follow the option Retain Longitudinal Temporal Information With Modified Dates.
"""

import csv
import functools
from importlib import resources

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag

PIXEL_DATA = 0x7FE00010
PIXEL_GROUP = 0x7FE0
REMOVE, EMPTY, DUMMY, KEEP, CLEAN, UID = "X", "Z", "D", "K", "C", "U"

_FIRST_GROUP = 0x0008  # before it: commands, file meta and directory records, none of them part of an image
_CURVES, _OVERLAYS = 0x5000, 0x6000
_PERSONAL_GROUPS = frozenset({0x0010, 0x0032, 0x0038, 0x0040})
_LOOKUP_GROUP = 0x0028
_DATES = frozenset({"DA", "DT", "TM"})
_HARMLESS = frozenset({"AT", "CS", "DS", "FD", "FL", "IS", "SL", "SQ", "SS", "SV", "UL", "US", "UV"})
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})


@functools.cache
def listed_actions() -> dict[int, str]:
    """The action of every tag of the table."""
    with resources.files(__package__).joinpath("table.tsv").open(encoding="utf-8") as file:
        return {int(row["tag"], 16): row["action"] for row in csv.DictReader(file, delimiter="\t")}


def known_vr(tag: int) -> str:
    """VR by the dictionary, such as `LO` or `US or SS`; empty for a tag that it does not know."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


def keyword(tag: int) -> str:
    """Keyword by the dictionary, empty for a tag that it does not know."""
    return keyword_for_tag(tag) if dictionary_has_tag(tag) else ""


def action(tag: int, vr: str) -> str:
    """What is done to an element.

    Args:
        tag: Its tag.
        vr: Its VR as stored; the dictionary's where the file does not say.

    Returns:
        `X` remove, `Z` empty, `D` dummy, `K` keep, `C` move the date, `U` another UID. Sequences with `K` or `U` are walked.
    """
    group = tag >> 16
    if group % 2 or group < _FIRST_GROUP or group & 0xFF00 in (_CURVES, _OVERLAYS) or tag > PIXEL_DATA:
        return REMOVE
    fits = set(vr.split(" or ")) <= set(known_vr(tag).split(" or "))
    listed = listed_actions().get(tag)
    if listed is None:
        return _unlisted(group, vr) if fits else REMOVE
    return REMOVE if listed == KEEP and not fits else listed


def _unlisted(group: int, vr: str) -> str:
    kinds = set(vr.split(" or "))
    if group in _PERSONAL_GROUPS:
        return REMOVE
    if kinds <= _DATES:
        return CLEAN
    if kinds == {"UI"}:
        return UID
    if kinds <= _HARMLESS or (group == _LOOKUP_GROUP and kinds <= _BYTES | _HARMLESS):
        return KEEP
    return REMOVE  # texts, names and addresses that nobody has vouched for
