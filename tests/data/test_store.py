"""The store serves what was stored, or nothing."""

import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.data.entry import Bits, decode, encode
from medssl.data.manifest import ManifestRow
from medssl.data.prepare import prepare
from medssl.data.store import Store
from medssl.errors import ConflictError, MedSSLError, UsageError


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Another scan's file of the same kind under this name."""
    kind = ".".join(path.name.split(".")[-2:]) if path.suffix == ".npy" else "json"
    other = next(other for other in sorted(path.parent.glob(f"*.{kind}")) if other != path)
    shutil.copyfile(other, path)


def swap_whole_entry(path: Path) -> None:
    """All files of another scan under this scan's names, so that they fit together."""
    stem, others = path.name.split(".")[0], sorted({other.name.split(".")[0] for other in path.parent.iterdir()})
    other = next(name for name in others if name != stem)
    for suffix in ("json", "image.npy", "lesion.npy"):
        shutil.copyfile(path.parent / f"{other}.{suffix}", path.parent / f"{stem}.{suffix}")


FAULTS = [flip, zero, cut, empty, swap, swap_whole_entry, Path.unlink]


@pytest.fixture
def folder(cohort: Callable[..., Path], tmp_path: Path) -> Path:
    """A store of ten scans."""
    prepare(cohort(), tmp_path / "store")
    return tmp_path / "store"


def entry_file(folder: Path, kind: str) -> tuple[ManifestRow, Path]:
    row = Store(folder).manifest.rows[3]
    return row, next((folder / "arrays").glob(f"{row.scan_id}-*.{kind}"))


def content(folder: Path, row: ManifestRow) -> tuple[np.ndarray, np.ndarray | None]:
    store = Store(folder)
    return np.array(store.image(row)), store.lesion(row)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("kind", ["image.npy", "lesion.npy", "json"])
def test_a_damaged_entry_is_made_again_with_one_warning(
    folder: Path, kind: str, fault: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    row, path = entry_file(folder, kind)
    image, lesion = content(folder, row)
    fault(path)
    with caplog.at_level(logging.WARNING):
        again = content(folder, row)
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], lesion)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"the store entry of scan {row.scan_id} was damaged and was made again"]
    assert Store(folder).entry(row).is_intact(folder, "image")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("kind", ["image.npy", "lesion.npy", "json"])
def test_without_its_source_a_damaged_entry_is_an_error(folder: Path, tmp_path: Path, kind: str, fault: Callable[[Path], None]) -> None:
    row, path = entry_file(folder, kind)
    fault(path)
    shutil.move(tmp_path / "scans", tmp_path / "elsewhere")
    with pytest.raises(MedSSLError, match=f"store entry of scan {row.scan_id} is damaged; run medssl prepare again"):
        content(folder, row)


def test_a_flipped_byte_anywhere_in_an_array_is_found(folder: Path) -> None:
    row, path = entry_file(folder, "image.npy")
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        path.write_bytes(whole)
        flip(path, int(place))
        assert not Store(folder).entry(row).is_intact(folder, "image")


def test_a_source_that_was_edited_does_not_heal_an_entry(folder: Path, tmp_path: Path) -> None:
    row, path = entry_file(folder, "image.npy")
    flip(path)
    shutil.copyfile(tmp_path / "scans" / "p9" / "image.nii.gz", tmp_path / "scans" / row.image)
    with pytest.raises(MedSSLError, match="is damaged"):
        Store(folder).image(row)


@pytest.mark.parametrize("name", ["store.json", "leakage.json", "fingerprints.npy"])
@pytest.mark.parametrize("fault", [flip, zero, cut, empty], ids=lambda fault: fault.__name__)
def test_a_damaged_index_is_an_error_and_prepare_repairs_it(folder: Path, tmp_path: Path, name: str, fault: Callable[[Path], None]) -> None:
    before = (folder / name).read_bytes()
    fault(folder / name)
    with pytest.raises(MedSSLError, match="run medssl prepare again"):
        store = Store(folder)
        store.signs(store.manifest.rows)
    prepare(tmp_path / "scans", folder)
    assert (folder / name).read_bytes() == before


def test_a_file_is_checked_once_and_then_read_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medssl.data.entry import Entry

    checked = []
    check = Entry.is_intact
    monkeypatch.setattr(Entry, "is_intact", lambda self, *arguments: (checked.append(self.scan_id), check(self, *arguments))[1])
    store = Store(folder)
    for _ in range(5):
        store.image(store.manifest.rows[0])
    assert len(checked) == 1


def test_few_files_stay_open_and_what_comes_back_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.data.store._OPEN_ARRAYS", 2)
    store = Store(folder)
    first = [np.array(store.image(row)) for row in store.manifest.rows]
    assert len(store._open) == 2
    for row, image in zip(store.manifest.rows, first, strict=True):
        np.testing.assert_array_equal(store.image(row), image)


def test_a_store_goes_to_another_process_without_its_files(folder: Path) -> None:
    store = Store(folder)
    row = store.manifest.rows[0]
    image = np.array(store.image(row))
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 20_000
    np.testing.assert_array_equal(again.image(row), image)


def test_what_is_written_to_an_array_in_memory_does_not_reach_the_file(folder: Path) -> None:
    row, path = entry_file(folder, "image.npy")
    before = path.read_bytes()
    Store(folder).image(row)[:] = 0
    assert path.read_bytes() == before


def test_a_store_gives_array_mask_and_geometry(folder: Path) -> None:
    store = Store(folder)
    row = next(row for row in store.manifest.rows if row.has_lesion == "1")
    assert store.image(row).shape == (1, 24, 24, 6)
    np.testing.assert_allclose(store.geometry(row), np.diag([1, 1, 4, 1.0]))
    lesion = store.lesion(row)
    assert lesion is not None
    assert (lesion.sum(), lesion[0, 2:4, 2:4, 1].sum()) == (4, 4)
    assert store.entry(row).lesion_slices == (1,)


def test_a_store_of_an_older_format_is_refused(folder: Path) -> None:
    (folder / "store.json").unlink()
    (folder / "preprocess.json").write_text("{}")
    with pytest.raises(ConflictError, match="format 1, this medssl reads"):
        Store(folder)


def test_prepare_does_not_mix_with_a_store_of_an_older_format(folder: Path, tmp_path: Path) -> None:
    (folder / "store.json").unlink()
    (folder / "preprocess.json").write_text("{}")
    with pytest.raises(ConflictError, match="another out folder"):
        prepare(tmp_path / "scans", folder)


def test_a_folder_that_is_no_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="medssl prepare"):
        Store(tmp_path)


def test_values_come_back_to_eleven_bits() -> None:
    values = np.linspace(-6, 6, 1001, dtype=np.float32)
    np.testing.assert_allclose(decode(encode(values)), values, rtol=1 / 2048, atol=1e-6)


def test_values_beyond_the_range_are_saturated_not_infinite() -> None:
    assert decode(encode(np.array([1e6, -1e6], np.float32))).tolist() == [65504, -65504]


@pytest.mark.parametrize("axis", [2, 3])
def test_a_part_of_a_mask_is_that_part_of_the_whole(axis: int) -> None:
    generator = np.random.default_rng(0)
    mask = generator.integers(0, 2, (1, 9, 21, 13)).astype(np.uint8)
    bits = Bits.of(mask, axis=axis)
    np.testing.assert_array_equal(bits.whole(), mask)
    for _ in range(30):
        ends = [sorted(generator.choice(size + 1, 2, replace=False)) for size in mask.shape[1:]]
        parts = (slice(None), *(slice(int(low), int(high)) for low, high in ends))
        np.testing.assert_array_equal(bits[parts], mask[parts])
