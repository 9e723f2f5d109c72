"""Masks that tell classes apart: read, resampled, stored, served."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.entry import Entry, encode, write_entry
from medssl.data.intake import _mask_sha256
from medssl.data.masks import Bits, class_values, drawn
from medssl.data.prepare import prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.volume import Volume


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], ()),
        ([0, 255], ()),
        ([0, 0], ()),
        ([0, 1, 2, 4], (1, 2, 4)),
        ([0, 2], (2,)),
        ([0.0, 1.0, 3.0], (1, 3)),
        ([0.0, 0.3, 1.0], ()),
        (list(range(40)), ()),
        ([0, 1, 300], ()),
    ],
)
def test_which_masks_tell_classes_apart(values: list[float], expected: tuple[int, ...]) -> None:
    assert class_values(np.array(values)) == expected


@pytest.mark.parametrize(
    ("mask", "lossy", "expected"),
    [
        ([0, 1, 2], False, [0, 1, 2]),
        ([0.0, 1.0000153, 2.0000305], False, [0, 1, 2]),  # integers behind a scale factor
        ([0.0, 0.1, 0.44, 0.5, 0.9], False, [0, 0, 0, 1, 1]),  # probabilities
        ([0.0, 0.1, 0.45], False, [0, 0, 1]),
        ([*[1.0, 2.0, 4.0] * 4, 0.3, 0.0], False, [*[1, 2, 4] * 4, 0, 0]),  # classes with an interpolated edge
        ([*range(256)], False, [*range(256)]),  # numbers of lesions
        ([0.0, 30.5, 99.0], False, [0, 0, 1]),  # per cent
        ([np.nan, 0.0, 1.0], False, [0, 0, 1]),
        ([0, 3, 120, 250, 254], True, [0, 0, 0, 1, 1]),  # what JPEG makes of an edge
        ([*range(0, 256, 15), *[255] * 20], False, [*[0] * 9, *[1] * 29]),  # a soft brush
        ([*range(40)], False, [*range(40)]),  # numbers of lesions
        ([0, 1], True, [0, 1]),
    ],
)
def test_a_mask_becomes_whole_numbers(mask: list[float], lossy: bool, expected: list[int]) -> None:
    assert drawn(np.array(mask), lossy=lossy)[0].tolist() == expected


def test_only_a_mask_with_fractions_or_shades_is_told_of() -> None:
    assert [drawn(np.array(values))[1] for values in ([0, 1, 2], [0, 1.0000153], [0, 0.6])] == [True, True, False]


@pytest.mark.parametrize("axis", [2, 3])
def test_a_part_of_a_mask_of_classes_is_that_part_of_the_whole(axis: int) -> None:
    generator = np.random.default_rng(0)
    mask = generator.choice([0, 1, 2, 4], (1, 9, 21, 13)).astype(np.uint8)
    bits = Bits.of(mask, axis=axis)
    np.testing.assert_array_equal(bits.valued(bits.everywhere), mask)
    np.testing.assert_array_equal(bits.whole(), mask > 0)
    parts = (slice(None), slice(2, 7), slice(3, 18), slice(5, 12))
    np.testing.assert_array_equal(bits.only(parts, (1, 4)), np.isin(mask[parts], (1, 4)))
    assert not bits.only(parts, (9,)).any()


def test_voxels_are_counted_by_class() -> None:
    mask = np.random.default_rng(0).choice([0, 1, 2], (1, 5, 6, 7)).astype(np.uint8)
    assert Bits.of(mask, axis=3).counts() == {value: int((mask == value).sum()) for value in (1, 2)}


def test_an_entry_of_a_mask_of_lesion_against_none_says_nothing_of_classes(tmp_path: Path) -> None:
    lesion = np.zeros((1, 4, 4, 4), np.uint8)
    lesion[0, 1] = 1
    write_entry(tmp_path, "a", "0" * 64, image=encode(np.ones((1, 4, 4, 4))), affine=np.eye(4), lesion=lesion)
    record = json.loads(next((tmp_path / "arrays").glob("*.json")).read_text())
    assert "values" not in json.dumps(record)
    entry = Entry.read(tmp_path, "a", "0" * 64)
    assert entry is not None
    assert (entry.values, entry.bits(entry.open(tmp_path, "lesion")).values) == ((), (1,))


def test_between_classes_a_voxel_is_of_the_class_that_has_most_of_it() -> None:
    mask = np.zeros((1, 8, 4, 4), np.uint8)
    mask[0, :2], mask[0, 2:6] = 1, 4
    scan = Volume(np.random.default_rng(0).normal(size=(1, 8, 4, 4)).astype(np.float32), np.eye(4))
    preprocess = Preprocess(spacing_mm=(2.0, 1.0, 1.0))
    assert preprocess.lesion(Volume(mask, np.eye(4)), preprocess(scan))[0, :, 0, 0].tolist() == [1, 4, 4, 0]


def test_the_identity_of_a_mask_is_its_classes() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[:2], mask[2] = 1, 2
    assert _mask_sha256(mask) != _mask_sha256(np.minimum(mask, 1))
    assert _mask_sha256(mask) == _mask_sha256(mask.astype(np.float32))


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    """Three patients with two classes of tissue in each mask, as NIfTI."""
    generator, root = np.random.default_rng(0), tmp_path / "tumours"
    root.mkdir()
    table = [["patient", "image", "lesion", "split"]]
    for number in range(3):
        mask = np.zeros((12, 12, 4), np.float32)
        mask[2:5, 2:5, 1], mask[6:9, 6:9, 2] = 2, 4
        for name, array in (("image", generator.normal(size=mask.shape).astype(np.float32)), ("mask", mask)):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 4.0, 1.0])), root / f"{number}_{name}.nii.gz")
        table.append([f"p{number}", f"{number}_image.nii.gz", f"{number}_mask.nii.gz", ("train", "val", "test")[number]])
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return root


def test_a_store_keeps_the_classes_of_a_mask(tumours: Path, tmp_path: Path) -> None:
    prepare(tumours, tmp_path / "store", workers=1)
    store = Store(tmp_path / "store")
    row = store.manifest.rows[0]
    entry, mask = store.entry(row), store.mask(row)
    assert mask is not None
    assert (entry.values, entry.value_slices, entry.lesion_slices) == ((2, 4), ((1,), (2,)), (1, 2))
    assert mask.counts() == {2: 9, 4: 9}
    lesion = store.lesion(row)
    assert lesion is not None
    assert lesion.max() == 1
