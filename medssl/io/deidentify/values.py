"""Values of elements as text, and what stands in their place: moved dates, dummies."""

import datetime
import re

from pydicom.dataset import Dataset

from medssl.io.deidentify.table import known_vr

_DATES = {
    "DA": re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)()"),  # with dots before DICOM 3.0
    # a shorter date-time has the precision of a month or a year; the offset from UTC would tell the region
    "DT": re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d{2,6}(?:\.\d{1,6})?)?(?:[+-]\d{4})?"),
}
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?")
_GRAMMAR = {
    "CS": re.compile(r"[A-Za-z0-9 _]{0,16}"),
    "DS": re.compile(r"[0-9eE+\-. ]{0,40}"),  # many programs write more than the 16 that are allowed
    "IS": re.compile(r"[0-9+\- ]{0,12}"),
}
_DUMMIES: dict[str, object] = {
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101",
    "DS": "0",
    "IS": "0",
    "OB": b"\0\0",
    "OW": b"\0\0",
    "TM": "000000",
    "UN": b"\0\0",
}


def text_of(dataset: Dataset, tag: int) -> str:
    """A value as text, backslashes between several; empty where it is absent. The element stays as it was read."""
    if tag not in dataset:
        return ""
    value = dataset.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("latin-1").strip("\0 ")
    parts = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return "\\".join("" if part is None else str(part) for part in parts).strip("\0 ")


def is_well_formed(text: str, vr: str) -> bool:
    """Whether a code or a number in letters is one; other kinds of text always are."""
    return vr not in _GRAMMAR or all(_GRAMMAR[vr].fullmatch(part) for part in text.split("\\"))


def dummy(tag: int) -> object:
    """A value without meaning that fits the VR of a tag."""
    return _DUMMIES.get(known_vr(tag), "REMOVED")


def moved(text: str, vr: str, days: int) -> str:
    """Dates some days earlier, with the precision they have; times of day as they are; empty where a text is neither.

    Args:
        text: One value or several.
        vr: `DA`, `DT` or `TM`.
        days: How far back.
    """
    return "\\".join(_moved(part.strip(), vr, days) for part in text.split("\\"))


def _moved(text: str, vr: str, days: int) -> str:
    if vr == "TM":
        return text if _TIME.fullmatch(text) else ""
    found = _DATES[vr].fullmatch(text)
    if found is None:
        return ""
    year, month, day, rest = found.groups()
    try:
        date = datetime.date(int(year), int(month or 1), int(day or 1)) - datetime.timedelta(days)
    except (ValueError, OverflowError):
        return ""
    return f"{date.year:04d}{date:%m%d}"[: 4 + 2 * bool(month) + 2 * bool(day)] + (rest or "")
