"""The files of a data folder by their names: which are images, and what a manifest can name."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

NIFTI = (".nii.gz", ".nii")
IMAGES = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_NOT_IN_NAMES = ";\\"


def files_below(folder: Path, below: str = "") -> Iterator[PurePosixPath]:
    """Regular files below a folder, sorted, relative to it; hidden ones and links are left out."""
    try:
        with os.scandir(folder / below) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except PermissionError:
        logger.warning("a folder may not be read and was left out: %s", below)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not can_be_named(entry.name):
            logger.warning(
                "%r was left out: a name with %s or an unprintable character cannot stand in a manifest", entry.name, _NOT_IN_NAMES
            )
        elif entry.is_dir(follow_symlinks=False):
            yield from files_below(folder, f"{below}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield PurePosixPath(f"{below}{entry.name}")


def stem_of(path: PurePosixPath) -> str:
    """The name without the ending of an image."""
    suffix = next((suffix for suffix in IMAGES if path.name.casefold().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def can_be_named(place: str) -> bool:
    """Whether a place can stand in a manifest."""
    return place.isprintable() and not set(place) & set(_NOT_IN_NAMES)


def is_image(path: PurePosixPath) -> bool:
    """Whether a name ends as those of images do."""
    return path.name.casefold().endswith(IMAGES)
