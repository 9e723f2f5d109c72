"""A data set in BIDS -> a manifest.

Format: https://bids.neuroimaging.io. Images below `sub-*/`, masks beside them or below `derivatives/` (`*_lesion-mask`, `*_dseg`,
`*_mask`, not of brain or tissue), age, sex, site and group from `participants.tsv`. Licence and citation: `dataset_description.json` of
the data set.
Traps: a mask that does not name its sequence is given to FLAIR, then T1w, then T2w; the other sequences of that session count as
unlabelled. `group` becomes the label.

    python data_prep/bids.py FOLDER --out manifest.csv
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.folder import run
from medssl.data.layouts import find_layout
from medssl.data.manifest import ManifestRow


def find(folder: Path) -> list[ManifestRow]:
    """One row an image."""
    return find_layout(folder, layout="bids")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of a BIDS data set."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
