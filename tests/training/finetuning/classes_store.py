"""A small store of scans with named classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medssl.data.entry import encode, entry_key, write_entry
from medssl.data.fingerprint import fingerprint
from medssl.data.leakage import Leakage
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.store import Index, write_store
from medssl.volume import Volume

SHAPE = (16, 16, 4)
SPLITS = ("train", "train", "val", "test")


def write_classes(folder: Path, labels: Sequence[str], *, values: Sequence[Sequence[int]] | None = None) -> Path:
    """Patients of every label in every split, twice as many to train on, and masks of these values, each a square of its own."""
    generator, rows, scans, signs = np.random.default_rng(0), [], {}, []
    for split_number, split in enumerate(SPLITS):
        for number, label in enumerate(labels):
            name = f"s{split_number}{number}"
            held = values[number] if values is not None else ()
            image, mask = generator.normal(size=(1, *SHAPE)).astype(np.float32), np.zeros((1, *SHAPE), np.uint8)
            for place, value in enumerate(held):
                mask[0, 4 * place + 1 : 4 * place + 4, 2:8, place : place + 2] = value
            has_lesion = "" if values is None else str(int(bool(held)))
            sha256 = f"{split_number}{number}".ljust(64, "0")
            row = ManifestRow(name, f"p{name}", "x", split=split, label=label, sha256=sha256, has_lesion=has_lesion)
            key = entry_key(sha256, Preprocess())
            lesion = None if values is None else mask
            write_entry(folder, name, key, image=encode(image + 2 * mask), affine=np.eye(4), lesion=lesion)
            rows.append(row)
            scans[name] = (key, sha256)
            signs.append(fingerprint(Volume(image, np.eye(4))))
    write_store(folder, Manifest(tuple(rows)), Index(Preprocess(), "../x", scans), signs=np.stack(signs), leakage=Leakage())
    return folder
