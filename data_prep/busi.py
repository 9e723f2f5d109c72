"""BUSI breast ultrasound images (normal, benign, malignant) with lesion masks -> a manifest.

Source: Al-Dhabyani, Gomaa, Khaled, Fahmy, Dataset of breast ultrasound images, Data in Brief 28, 2020. Licence: CC BY 4.0.
Layout: `images.csv` (image, label, lesion), `images/<class>_<number>.png`, `lesions/`.
Traps: no patient ids (about 600 patients behind 780 images) and near-duplicates, so neighbours in number are kept together in blocks,
which lowers the leak but cannot exclude it (`prepare` stops at pairs in two blocks unless --keep-together draws them into one split);
burned-in text and calipers are a shortcut for a classifier; no voxel spacing.

    python data_prep/busi.py FOLDER --out manifest.csv
    medssl prepare FOLDER --labels manifest.csv --out STORE --keep-together
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.folder import run
from medssl.data.layouts import find_layout
from medssl.data.manifest import ManifestRow

_BLOCK = 10  # numbers


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row an image; the group is the class and the block of its number."""
    for row in find_layout(folder, layout="table"):
        number = re.search(r"(\d+)\D*$", row.image)
        group = f"{row.label}-{int(number.group(1)) // _BLOCK:03d}" if number else row.patient
        yield replace(row, patient=group, modality="US", nominal=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of BUSI."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
