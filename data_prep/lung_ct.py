"""IQ-OTH/NCCD chest CT slices around lung cancer (normal, benign, malignant) -> a manifest.

Source: Alyasriy, AL-Huseiny, The IQ-OTH/NCCD lung cancer dataset, Mendeley Data, https://doi.org/10.17632/bhmdr45bh2.
Licence: CC BY 4.0.
Layout: `images.csv` (image, label), `images/<class>_<number>.jpg`.
Traps: 110 patients behind 1,097 images but no patient ids; neighbours in number are near-duplicates, so a group is a class and a block
of contiguous numbers (two scans at a block's edge may still be one patient); some pairs are byte-identical and many nearly so across the
blocks, at which `prepare` stops unless --keep-together draws such groups into one split. The images are windowed 8-bit, so no Hounsfield
units and no spacing. Not for a claim about lung cancer.

    python data_prep/lung_ct.py FOLDER --out manifest.csv
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

_BLOCK = 20  # numbers; a patient has about ten images


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row an image; the group is the class and the block of its number."""
    for row in find_layout(folder, layout="table"):
        number = re.search(r"(\d+)\D*$", row.image)
        group = f"{row.label}-{int(number.group(1)) // _BLOCK:03d}" if number else row.patient
        yield replace(row, patient=group, nominal=True)  # no modality: windowed 8-bit values are not Hounsfield units


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of IQ-OTH/NCCD."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
