import json
from pathlib import Path

import pytest
import torch

from medssl.data.preprocess import Preprocess
from medssl.errors import BundleError
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.vit import ViT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = ViT((4, 4), width=16, depth=1, heads=2)
    bundle = Bundle("encoder", encoder.architecture(), Preprocess(spacing_mm=(1.0, 1.0, 0.0)), Window((8, 8), 3))
    bundle.write(tmp_path / "bundle", encoder, "# card")
    return tmp_path / "bundle"


def test_a_bundle_is_read_as_it_was_written(folder: Path) -> None:
    bundle = Bundle.read(folder)
    assert bundle.preprocess == Preprocess(spacing_mm=(1.0, 1.0, 0.0))
    assert bundle.window == Window((8, 8), 3)
    assert isinstance(bundle.load(folder), ViT)


def test_no_pickle_is_in_a_bundle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "bundle.json", "weights.safetensors"]


def test_a_pickled_checkpoint_is_refused_with_exit_code_4(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="unsafe_checkpoint") as caught:
        Bundle.read(tmp_path / "model.pt")
    assert caught.value.exit_code == 4


def test_another_format_version_is_refused(folder: Path) -> None:
    fields = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**fields, "format": 99}))
    with pytest.raises(BundleError, match="format 99"):
        Bundle.read(folder)


def test_a_flipped_byte_in_the_weights_is_refused(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="not those it was written with"):
        Bundle.read(folder)


def test_a_folder_without_a_bundle_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="RUN/bundle"):
        Bundle.read(tmp_path)
