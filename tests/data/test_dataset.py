"""Crops: the same number gives the same crop, from wherever the scan is."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed

from medssl.data.classes import scan_label
from medssl.data.dataset import Case, CropDataset, Crops, cut, load_cases
from medssl.data.entry import Bits, decode, encode
from medssl.data.feed import Feed
from medssl.data.manifest import ManifestRow
from medssl.data.prepare import prepare
from medssl.data.sampling import Batches
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.heads import AttentionClassifier, Classifier
from medssl.models.inference import Window, channel_probabilities, fit_of, fitted
from medssl.models.vit import ViT

ROW = ManifestRow(scan_id="a", patient="p", image="a.nii.gz")


@dataclass
class InMemory:
    """One scan."""

    stored: np.ndarray
    lesion: np.ndarray

    def image(self, row: ManifestRow) -> np.ndarray:
        del row
        return self.stored

    def mask(self, row: ManifestRow) -> Bits:
        del row
        return Bits.of(self.lesion, axis=3)


def case(shape: tuple[int, int, int] = (8, 8, 4), *, lesion_at: tuple[int, int, int] | None = None) -> Case:
    image = encode(np.arange(np.prod(shape)).reshape(1, *shape).astype(np.float32) / 100)
    lesion = np.zeros((1, *shape), np.uint8)
    if lesion_at:
        lesion[(0, *lesion_at)] = 1
    return Case(ROW, InMemory(image, lesion), (1, *shape), -1, True, np.flatnonzero(lesion.any(axis=(0, 1, 2))))


def test_the_same_number_is_the_same_crop() -> None:
    first, again = (CropDataset([case()], Crops((4, 4)), seed=1)[17] for _ in range(2))
    assert first["image"].equal(again["image"])


def test_other_numbers_and_other_seeds_are_other_crops() -> None:
    dataset, other = (CropDataset([case((64, 64, 32))], Crops((4, 4)), seed=seed) for seed in (1, 2))
    crops = [tuple(one[number]["image"].flatten().tolist()) for one in (dataset, other) for number in range(20)]
    assert len(set(crops)) == 40


def test_a_slice_crop_has_its_neighbours_as_channels() -> None:
    sample = cut(case(), np.array([4, 4, 2]), Crops((8, 8), context=3))
    expected = decode(case().image)[0, :, :, 1:4].transpose(2, 0, 1)
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
    batches = Batches(3, 3, first=2)
    assert list(batches) == [[6, 7, 8]]
    assert len(batches) == 3


def test_processes_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    assert list(Batches(2, 4)) == [[2, 3], [6, 7]]


def test_an_even_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="context must be odd"):
        Crops((8, 8), context=2)


def test_crops_come_as_tensors_of_float() -> None:
    assert CropDataset([case()], Crops((4, 4)), seed=0)[0]["image"].dtype == torch.float32


def test_a_batch_holds_the_crops_of_its_numbers() -> None:
    dataset = CropDataset([case((32, 32, 9), lesion_at=(20, 10, 3))], Crops((16, 12, 8)), seed=4)
    batch = dataset.__getitems__([5, 2, 9])
    for place, number in enumerate((5, 2, 9)):
        for name, value in dataset[number].items():
            assert value.equal(batch[name][place])  # type: ignore[literal-required]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_batches_whatever_the_number_of_workers(cohort, tmp_path: Path, workers: int) -> None:
    prepare(cohort(), tmp_path / "store")
    store = Store(tmp_path / "store")
    feed = Feed(tmp_path / "store", Crops((8, 8), context=3), batch_size=4, workers=workers)
    batches = list(feed.labelled(load_cases(store, store.manifest.rows), steps=3, seed=1))
    expected = CropDataset(load_cases(store, store.manifest.rows), feed.crops, seed=1)
    assert [tuple(batch["image"].shape) for batch in batches] == [(4, 3, 8, 8)] * 3
    assert torch.cat([batch["image"] for batch in batches]).equal(expected.__getitems__(range(12))["image"])


@pytest.mark.parametrize("size", [(8, 8), (8, 6, 4)])
def test_a_crop_of_a_store_is_that_part_of_the_scan(cohort, tmp_path: Path, size: tuple[int, ...]) -> None:
    prepare(cohort(), tmp_path / "store")
    store = Store(tmp_path / "store")
    (one,) = load_cases(store, [row for row in store.manifest.rows if row.has_lesion == "1"][:1])
    centre = np.array([10, 9, 3])
    sample = cut(one, centre, Crops(size))
    where = tuple(slice(middle - width // 2, middle - width // 2 + width) for middle, width in zip(centre, (*size, 1)[:3], strict=True))
    expected = decode(np.array(one.image))[(slice(None), *where)]
    np.testing.assert_array_equal(sample["image"].numpy().reshape(expected.shape), expected)
    assert one.lesion is not None
    np.testing.assert_array_equal(sample["lesion"].numpy().reshape(expected.shape), one.lesion[(slice(None), *where)])


def test_nothing_of_a_scan_is_opened_before_a_crop_needs_it(cohort, tmp_path: Path) -> None:
    prepare(cohort(), tmp_path / "store")
    store = Store(tmp_path / "store")
    dataset = CropDataset(load_cases(store, store.manifest.rows), Crops((8, 8), lesion_fraction=0.0), seed=0)
    assert len(store._open) == 0
    dataset[0]
    assert len(store._open) == 2


def test_without_masks_no_crop_knows_where_lesion_is(cohort, tmp_path: Path) -> None:
    prepare(cohort(), tmp_path / "store")
    store = Store(tmp_path / "store")
    dataset = CropDataset(load_cases(store, store.manifest.rows, masks=False), Crops((8, 8), lesion_fraction=1.0), seed=0)
    assert dataset.with_lesion == []
    assert not dataset.__getitems__(range(20))["lesion"].any()


def scored_images(network: Network, one: Case, window: Window) -> Tensor:
    """What a classifier is given when it scores a scan, without mirror images."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    channel_probabilities(network.eval(), torch.from_numpy(decode(one.image)), window)
    return torch.cat(seen)


@pytest.mark.parametrize(("size", "context", "bag"), [((8, 8), 3, 1), ((8, 8, 4), 1, 1), ((8, 8), 3, 6)])
def test_a_classifier_learns_from_exactly_what_it_sees_when_it_scores(size: tuple[int, ...], context: int, bag: int) -> None:
    one = case((20, 14, 6), lesion_at=(18, 2, 1))
    encoder = ViT((4,) * len(size), in_channels=context, width=8, depth=1, heads=1)
    network = AttentionClassifier(encoder) if bag > 1 else Classifier(encoder)
    scored = scored_images(network, one, Window(size, context, flips=False))
    learned = CropDataset([one], Crops(size, context=context, bag=bag), seed=0, fit=fit_of(network.task)).__getitems__(range(40))["image"]
    scored = scored if bag > 1 or len(size) == 3 else scored.unique(dim=0)
    assert learned.unique(dim=0).equal(scored)


def test_a_slice_whose_lesion_a_crop_would_miss_is_learned_as_lesion() -> None:
    marked = case((32, 32, 4), lesion_at=(30, 1, 2))
    batch = CropDataset([marked], Crops((8, 8), lesion_fraction=0.0), seed=0, fit=fitted).__getitems__(range(40))
    with_lesion = fitted(torch.from_numpy(decode(marked.image[..., 2]))[None], (8, 8))[0]
    assert {int(label) for label in batch["label"]} == {0, 1}
    assert [bool(label) for label in batch["label"]] == [image.equal(with_lesion) for image in batch["image"]]


def test_a_volume_crop_without_lesion_is_not_called_lesion() -> None:
    marked = replace(case((32, 8, 8), lesion_at=(30, 4, 4)), label=1)
    assert [int(cut(marked, (i, 4, 4), Crops((8, 8, 8)))["label"]) for i in (4, 28)] == [0, 1]


def test_bags_of_crops_are_refused() -> None:
    with pytest.raises(ConfigError, match="whole slices"):
        CropDataset([case()], Crops((8, 8), bag=4), seed=0)


def body(shape: tuple[int, int, int], where: tuple[slice, slice, slice]) -> Case:
    """A scan of air around a body."""
    found = case(shape)
    stored = found.arrays.image(found.row)
    stored[:] = 0
    stored[(0, *where)] = 1
    return replace(found, levels=(0.05,))


def test_crops_without_lesion_are_centred_on_the_body() -> None:
    one = body((60, 40, 12), (slice(30, 50), slice(10, 30), slice(4, 9)))
    assert one.box == ((30, 50), (10, 30), (4, 9))
    images = CropDataset([one], Crops((8, 8)), seed=0).__getitems__(range(60))["image"]
    assert images.flatten(1).amax(dim=1).tolist() == [1.0] * 60


def test_the_box_of_a_large_scan_holds_its_body_to_a_few_voxels() -> None:
    (first, end), *others = body((300, 20, 4), (slice(101, 203), slice(None), slice(None))).box
    assert first <= 101 <= first + 4
    assert end - 4 <= 203 <= end
    assert others == [(0, 20), (0, 4)]


def test_a_scan_without_air_is_cropped_as_if_nothing_was_known_of_its_body() -> None:
    full = body((32, 32, 9), (slice(None), slice(None), slice(None)))
    first, same = (CropDataset([one], Crops((8, 6, 4)), seed=3).__getitems__(range(20)) for one in (full, replace(full, levels=())))
    assert first["image"].equal(same["image"])


def test_a_body_at_the_edge_or_smaller_than_a_crop_is_cropped_inside_the_scan() -> None:
    edge = body((32, 32, 4), (slice(28, 32), slice(0, 4), slice(3, 4)))
    images = CropDataset([edge], Crops((16, 16)), seed=0).__getitems__(range(20))["image"]
    assert images.flatten(1).amax(dim=1).tolist() == [1.0] * 20


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_bags_are_of_scans_with_lesion_as_often_as_asked_for(fraction: float) -> None:
    well = [replace(case((8, 8, 6)), label=0) for _ in range(9)]
    ill = replace(case((8, 8, 6)), label=1)
    dataset = CropDataset([*well, ill], Crops((8, 8), bag=4, lesion_fraction=fraction), seed=0, fit=fitted)
    share = sum(dataset._draw(dataset.draws.of(number))[0] is ill for number in range(400)) / 400
    assert share == pytest.approx(fraction + (1 - fraction) / 10, abs=0.07)


def test_a_picture_without_a_label_has_the_answer_of_its_mask() -> None:
    marked = case((8, 8, 1), lesion_at=(4, 4, 0))
    assert replace(marked, label=-1).slice_target(0) == (1,)
    assert replace(marked, label=0).slice_target(0) == (0,)  # a label of its own counts first
