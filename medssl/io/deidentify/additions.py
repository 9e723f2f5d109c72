"""Files that are added to what is there, and tables that go on."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import ScanError
from medssl.files import write_text, write_whole
from medssl.io.files import read_file


def add_file(path: Path, content: bytes) -> None:
    """Write a file that is not there yet; the very same file is left as it is.

    Raises:
        ScanError: `conflicting_slices` where another file has its name.
        NoSpaceError, UsageError: As `medssl.files.write_whole`.
    """
    if not os.path.lexists(path):
        write_whole(path, [content])
    elif read_file(path)[0] != content:
        raise ScanError("conflicting_slices", "another image has been written under the same instance UID")


def merge_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table; rows of an older one stay where their first cell is none of this run's."""
    replaced = {row[0] for row in rows}
    older: list[list[str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            older = [row for row in list(csv.reader(file))[1:] if row and row[0] not in replaced]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(columns), *older, *rows])
    write_text(path, text.getvalue())
