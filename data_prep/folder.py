"""Any folder of scans -> a manifest.

The layout is found by itself (a table in the root, BIDS, nnU-Net, plain files) or named; the licence and the citation are those of
whoever gave the scans. Traps: without a table the patient is the first folder on the way to a scan, or the file where one folder holds
many; if the scans of a patient lie elsewhere, write a table with a column `patient`.

    python data_prep/folder.py FOLDER --out manifest.csv [--layout plain] [--labels labels.csv]
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from medssl.data.layouts import find_layout
from medssl.data.manifest import Manifest, ManifestRow, name_rows
from medssl.errors import ManifestError, MedSSLError

logger = logging.getLogger(__name__)


def run(find: Callable[[Path], Iterable[ManifestRow]], description: str, argv: Sequence[str] | None) -> int:
    """What the scripts of the public data sets share: FOLDER --out, one line on success, one line on an error.

    Args:
        find: The rows of a folder; an empty scan_id is filled from the path.
        description: The script's docstring, shown by --help.
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_places(parser)
    given = parser.parse_args(argv)
    return save(lambda: find(given.folder), given.out)


def save(find: Callable[[], Iterable[ManifestRow]], out: Path) -> int:
    """Write the rows that `find` gives, and say how many; the exit code."""
    try:
        rows = tuple(name_rows(find()))
        if not rows:
            raise ManifestError("no_rows", "the folder holds no scan of this data set; look at the source that --help names")
        Manifest(rows).write(out)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{len(rows)} scans of {len({row.patient for row in rows})} patients or groups: {out}")
    return 0


def patients(folder: Path, *images: str, named: str = "*") -> Iterator[Path]:
    """The folders of patients that hold at least one of the images, by name; each other one is told in a warning.

    Args:
        folder: The data set.
        images: Names of the files that are looked for.
        named: Pattern of the names of such folders.
    """
    for place in sorted(path for path in folder.glob(named) if path.is_dir()):
        if any((place / name).is_file() for name in images):
            yield place
        else:
            logger.warning("%s left out: it holds no %s", place.name, " or ".join(images))


def path_in(place: Path, name: str) -> str:
    """The path of a file of a patient below the data set, empty where it is not there."""
    return f"{place.name}/{name}" if (place / name).is_file() else ""


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the data set, unpacked")
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write; give it to medssl prepare as --labels")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of any folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_places(parser)
    parser.add_argument("--layout", help="table, bids, nnunet or plain; found by itself when left out")
    parser.add_argument("--labels", type=Path, help="a table of labels")
    given = parser.parse_args(argv)
    return save(lambda: find_layout(given.folder, layout=given.layout, labels=given.labels), given.out)


if __name__ == "__main__":
    sys.exit(main())
