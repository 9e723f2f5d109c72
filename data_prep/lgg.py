"""TCGA-LGG FLAIR with lesion masks (lower-grade glioma, brain MR) -> a manifest.

Source: TCGA-LGG, The Cancer Imaging Archive (Pedano et al., 2016, https://doi.org/10.7937/K9/TCIA.2016.L4LTD3TK), with masks by
Buda, Saha, Mazurowski, Association of genomic subtypes of lower-grade gliomas with shape features automatically extracted by a deep
learning algorithm, Comput Biol Med 109, 2019.
Licence: distributed as CC BY-NC-SA 4.0. Cite both wherever a figure computed on it is shown.
Layout: `TCGA_<site>_<number>/flair.nii.gz` and `lesion.nii.gz`.
Traps: the source has no voxel spacing, so geometry is nominal and volumes mean voxels; every patient has a lesion, so specificity can
be measured on slices only; slices of a patient are neighbours, so split by patient.

    python data_prep/lgg.py FOLDER --out manifest.csv
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.folder import path_in, patients, run
from medssl.data.manifest import ManifestRow


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row a patient; the site is the hospital's code in the patient's name."""
    for place in patients(folder, "flair.nii.gz", named="TCGA_*_*"):
        patient, lesion = place.name, path_in(place, "lesion.nii.gz")
        site = patient.split("_")[1]
        yield ManifestRow("", patient, f"{patient}/flair.nii.gz", site=site, lesion=lesion, modality="MR", nominal=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of TCGA-LGG."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
