from pathlib import Path

import numpy as np
import pytest
import yaml

from medssl.data.entry import encode, entry_key, write_entry
from medssl.data.fingerprint import fingerprint
from medssl.data.leakage import Leakage
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.store import Index, write_store
from medssl.volume import Volume


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two scans a split with a bright lesion in the first of them."""
    folder, generator = tmp_path / "store", np.random.default_rng(0)
    rows, scans, signs = [], {}, []
    for number, split in enumerate(["train", "train", "val", "val"]):
        held = 1 - number % 2
        row = ManifestRow(f"s{number}", f"p{number}", f"x{number}", split=split, sha256=f"{number:064d}", has_lesion=str(held))
        image, lesion = generator.normal(size=(1, 16, 16, 4)).astype(np.float32), np.zeros((1, 16, 16, 4), np.uint8)
        lesion[0, 4:9, 4:9, 1:3] = held
        key = entry_key(row.sha256, Preprocess())
        write_entry(folder, row.scan_id, key, image=encode(image + 3 * lesion), affine=np.eye(4), lesion=lesion)
        rows.append(row)
        scans[row.scan_id] = (key, row.sha256)
        signs.append(fingerprint(Volume(image, np.eye(4))))
    index = Index(Preprocess(), "../scans", scans)
    write_store(folder, Manifest(tuple(rows)), index, signs=np.stack(signs), leakage=Leakage())
    return folder


@pytest.fixture
def scratch(tmp_path: Path, store: Path) -> list[str]:
    """Arguments of `medssl finetune` for four steps of a small network from scratch, but for `--out`."""
    settings = {
        "network": {"class_path": "medssl.models.residual_unet.ResidualUNet", "init_args": {"widths": [4, 8]}},
        "feed": {"crops": {"size": [16, 16]}, "batch_size": 2, "store": str(store)},
        "training": {"steps": 4, "checkpoint_steps": 2, "precision": "32-true"},
    }
    path = tmp_path / "scratch.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]
