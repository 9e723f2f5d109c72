"""What a DICOM header tells of the case mix without telling who it is: age, sex, maker of the scanner, field strength or tube voltage.

Free text never leaves: the maker becomes one of a few names, sex a letter, ages of 90 and over one class (as HIPAA's safe harbour wants it,
45 CFR 164.514(b)(2)(i)(C)).
"""

import re
from itertools import islice
from pathlib import Path

from medssl.errors import ScanError
from medssl.io.dicom.elements import Elements
from medssl.io.dicom.header import parse_header
from medssl.io.dicom.tags import optional_float, text
from medssl.io.files import HEAD_BYTES, read_file

_MAKER, _KV, _TESLA, _SEX, _AGE = 0x00080070, 0x00180060, 0x00180087, 0x00100040, 0x00101010
_WANTED = frozenset({_MAKER, _KV, _TESLA, _SEX, _AGE})
_MAKERS = (
    "siemens",
    "philips",
    "ge",
    "canon",
    "toshiba",
    "hitachi",
    "fujifilm",
    "hologic",
    "agfa",
    "carestream",
    "united imaging",
    "neusoft",
)
_SHOWN = {"ge": "GE", "united imaging": "United Imaging"}
_OLDEST = 90
_FILES_TRIED = 5


def read_case(path: Path) -> dict[str, str]:
    """`age`, `sex`, `vendor` and `field` of a DICOM file or of a folder with one series; what is not known is absent."""
    for file in _files(path):
        try:
            head, stamp = read_file(file, length=HEAD_BYTES)
            found = parse_header(file, head, stamp, wanted=_WANTED)[0].elements
        except ScanError:
            continue
        told = {"age": _age(found), "sex": _sex(found), "vendor": _vendor(found), "field": _field(found)}
        return {name: value for name, value in told.items() if value}
    return {}


def _files(path: Path) -> list[Path]:
    """The file, or the first few of a folder."""
    if path.is_dir():
        return sorted(islice((file for file in path.rglob("*") if file.is_file() and not file.is_symlink()), _FILES_TRIED))
    return [path] if path.is_file() else []


def _vendor(found: Elements) -> str:
    said = text(found, _MAKER).casefold()
    maker = next((maker for maker in _MAKERS if re.search(rf"\b{maker}\b", said)), "")
    return _SHOWN.get(maker, maker.capitalize()) if maker else ("another maker" if said else "")


def _field(found: Elements) -> str:
    tesla, kilovolt = optional_float(found, _TESLA), optional_float(found, _KV)
    if tesla is not None and 0 < tesla < 25:
        return f"{round(tesla, 1):g} T"
    return f"{round(kilovolt)} kV" if kilovolt is not None and 1 <= kilovolt < 1000 else ""


def _sex(found: Elements) -> str:
    said = text(found, _SEX).upper()
    return said if said in ("F", "M", "O") else ""


def _age(found: Elements) -> str:
    match = re.fullmatch(r"(\d{3})([DWMY])", text(found, _AGE))
    if match is None:
        return ""
    years = int(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]])
    return str(min(years, _OLDEST))
