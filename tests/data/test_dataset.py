import numpy as np
import pytest
import torch

from medssl.data.dataset import Case, CropDataset, Crops, StepSampler, cut, scan_label
from medssl.data.manifest import ManifestRow
from medssl.data.store import encode
from medssl.errors import ConfigError


def case(shape: tuple[int, int, int] = (8, 8, 4), *, lesion_at: tuple[int, int, int] | None = None) -> Case:
    image = np.arange(np.prod(shape)).reshape(1, *shape).astype(np.float32) / 100
    lesion = np.zeros((1, *shape), np.uint8)
    if lesion_at:
        lesion[(0, *lesion_at)] = 1
    slices = np.flatnonzero(lesion.any(axis=(0, 1, 2)))
    return Case(ManifestRow(scan_id="a", patient="p", image="a.nii.gz"), encode(image), lesion, -1, slices)


def test_the_same_number_is_the_same_crop() -> None:
    first, again = (CropDataset([case()], Crops((4, 4)), seed=1)[17] for _ in range(2))
    assert first["image"].equal(again["image"])


def test_a_slice_crop_has_its_neighbours_as_channels() -> None:
    sample = cut(case(), np.array([4, 4, 2]), Crops((8, 8), context=3))
    expected = case().image[0, :, :, 1:4].transpose(2, 0, 1) / 2048
    np.testing.assert_allclose(sample["image"], expected)
    assert sample["lesion"].shape == (1, 8, 8)


def test_a_volume_crop_keeps_three_axes() -> None:
    sample = CropDataset([case()], Crops((4, 4, 2)), seed=0)[0]
    assert sample["image"].shape == (1, 4, 4, 2)
    assert sample["lesion"].shape == (1, 4, 4, 2)


def test_a_small_scan_is_padded_with_its_edge() -> None:
    sample = cut(case((2, 2, 1)), np.array([1, 1, 0]), Crops((4, 4)))
    assert sample["image"].shape == (1, 4, 4)
    assert sample["image"][0, 0, 0] == sample["image"][0, 1, 1]


def test_lesion_crops_hold_lesion() -> None:
    dataset = CropDataset([case((32, 32, 4), lesion_at=(20, 10, 3))], Crops((16, 16), lesion_fraction=1.0), seed=0)
    assert all(dataset[n]["lesion"].any() for n in range(20))


def test_the_label_of_a_slice_is_its_own() -> None:
    marked = case(lesion_at=(4, 4, 3))
    labels = [int(cut(marked, np.array([4, 4, k]), Crops((8, 8)))["label"]) for k in range(4)]
    assert labels == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("label", "positive", "expected"), [("normal", (), 0), ("benign", (), 1), ("benign", ("malignant",), 0), ("", (), -1)]
)
def test_which_class_is_positive(label: str, positive: tuple[str, ...], expected: int) -> None:
    assert scan_label(ManifestRow(scan_id="a", patient="p", image="a", label=label), positive) == expected


def test_a_resumed_sampler_goes_on_with_new_numbers() -> None:
    sampler = StepSampler(9, first=6)
    assert list(sampler) == [6, 7, 8]
    assert len(sampler) == 9


def test_an_even_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="context must be odd"):
        Crops((8, 8), context=2)


def test_crops_come_as_tensors_of_float() -> None:
    assert CropDataset([case()], Crops((4, 4)), seed=0)[0]["image"].dtype == torch.float32
