from pathlib import Path

import numpy as np
import pytest

from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store, array_path, decode, encode, write_array, write_preprocess
from medssl.errors import UsageError

ROW = ManifestRow(scan_id="a", patient="p", split="train", image="a.nii.gz", sha256="0" * 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_preprocess(tmp_path, Preprocess())
    values = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    write_array(array_path(tmp_path, ROW, Preprocess(), "image"), encode(values), np.diag([1, 1, 3, 1.0]))
    Manifest((ROW,)).write(tmp_path / "manifest.csv")
    return tmp_path


def test_values_come_back_within_half_a_step() -> None:
    values = np.linspace(-6, 6, 1000, dtype=np.float32)
    np.testing.assert_allclose(decode(encode(values)), values, atol=1 / 4096)


def test_values_beyond_the_range_are_saturated_not_wrapped() -> None:
    assert decode(encode(np.array([1e6, -1e6], np.float32))).tolist() == pytest.approx([16, -16], abs=0.01)


def test_a_store_gives_array_and_geometry(folder: Path) -> None:
    store = Store(folder)
    assert store.image(ROW).shape == (1, 8, 8, 4)
    assert store.lesion(ROW) is None
    np.testing.assert_allclose(store.geometry(ROW), np.diag([1, 1, 3, 1.0]))


def test_another_preprocessing_has_another_place() -> None:
    other = Preprocess(spacing_mm=(1, 1, 1))
    assert array_path(Path(), ROW, Preprocess(), "image") != array_path(Path(), ROW, other, "image")


def test_a_folder_that_is_no_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="medssl prepare"):
        Store(tmp_path)
