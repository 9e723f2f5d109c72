"""Multiple sclerosis FLAIR with the consensus of three raters (brain MR, MNI space) -> a manifest.

Source: Lesjak et al., A novel public MR image dataset of multiple sclerosis patients with lesion segmentations based on multi-rater
consensus, Neuroinformatics 2017. Licence: CC BY.
Layout: `<patient>/flair.nii.gz` and `lesion.nii.gz`.
Traps: few patients, for the 3D code path and not for claims; every patient has lesions.

    python data_prep/open_ms.py FOLDER --out manifest.csv
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.folder import path_in, patients, run
from medssl.data.manifest import ManifestRow


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row a patient."""
    for place in patients(folder, "flair.nii.gz"):
        yield ManifestRow("", place.name, f"{place.name}/flair.nii.gz", lesion=path_in(place, "lesion.nii.gz"), modality="MR")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of the multiple sclerosis data."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
