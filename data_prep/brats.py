"""BRATS 2015 examples (glioma, brain MR, FLAIR and contrast-enhanced T1) -> a manifest.

Source: examples distributed with DeepMedic (Kamnitsas et al., Med Image Anal 36, 2017) of BRATS 2015 (Menze et al., IEEE Trans Med
Imaging 34, 2015). Licence: CC BY-NC-SA 3.0.
Layout: `<patient>/flair.nii.gz`, `t1c.nii.gz`, `tumour.nii.gz` (several classes), `brainmask.nii.gz`.
Traps: few patients, for the 3D code path and not for claims; skull-stripped and z-scored already; without `labels.classes` any tumour
class counts as lesion (configs/finetune/classes/brats_segmenter.yaml names them).

    python data_prep/brats.py FOLDER --out manifest.csv
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.folder import path_in, patients, run
from medssl.data.manifest import ManifestRow


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row a patient, with FLAIR and T1c as its two channels; one that the patient lacks is left empty."""
    for place in patients(folder, "flair.nii.gz", "t1c.nii.gz"):
        image = f"{path_in(place, 'flair.nii.gz')};{path_in(place, 't1c.nii.gz')}"
        yield ManifestRow(place.name, place.name, image, lesion=path_in(place, "tumour.nii.gz"), modality="MR")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of the BRATS 2015 examples."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
