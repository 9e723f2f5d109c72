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

from data_prep.folder import run
from medssl.data.manifest import ManifestRow


def find(folder: Path) -> Iterator[ManifestRow]:
    """One row a patient, with FLAIR and T1c as its two channels."""
    for flair in sorted(folder.glob("*/flair.nii.gz")):
        patient = flair.parent.name
        if not (flair.parent / "t1c.nii.gz").is_file():
            continue
        lesion = f"{patient}/tumour.nii.gz" if (flair.parent / "tumour.nii.gz").is_file() else ""
        yield ManifestRow(patient, patient, f"{patient}/flair.nii.gz;{patient}/t1c.nii.gz", lesion=lesion, modality="MR")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of the BRATS 2015 examples."""
    return run(find, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
