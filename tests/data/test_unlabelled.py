"""Crops for pretraining: which belong together, and what is known of them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from medssl.data.dataset import Case, Crops
from medssl.data.entry import Bits, Stored, encode
from medssl.data.manifest import ManifestRow
from medssl.data.unlabelled import Positives, UnlabelledDataset, _same_place


@dataclass(frozen=True)
class InMemory:
    array: Stored

    def image(self, row: ManifestRow) -> Stored:  # noqa: ARG002
        return self.array

    def mask(self, row: ManifestRow) -> Bits | None:
        raise AssertionError(f"a mask of {row.scan_id} was asked for")


def case(scan_id: str, patient: str, shape: tuple[int, int, int] = (32, 24, 12), channels: int = 1) -> Case:
    """A scan in which each voxel of the first channel knows its place along I."""
    ramp = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], shape)
    image = encode(np.stack([ramp + 100 * channel for channel in range(channels)]))
    row = ManifestRow(scan_id=scan_id, patient=patient, image=scan_id, report="no lesion")
    return Case(row, InMemory(image), (channels, *shape), -1, True, np.arange(3), (1.0,) * channels, (True,) * channels)


@pytest.mark.parametrize("size", [(8, 6), (8, 6, 4)])
def test_overlapping_crops_share_at_least_half_along_each_axis(size: tuple[int, ...]) -> None:
    batch = UnlabelledDataset([case("a", "p")], Crops(size), seed=0, positives="overlap").__getitems__(range(50))
    distance = (batch["corner"][:, 0] - batch["corner"][:, 1]).abs()
    assert (distance <= torch.tensor(size) / 2).all()
    assert distance.sum() > 0


def test_a_corner_is_where_the_crop_begins() -> None:
    batch = UnlabelledDataset([case("a", "p")], Crops((8, 6, 4)), seed=0).__getitems__(range(20))
    assert batch["image"][:, 0, 0, 0, 0, 0].equal(batch["corner"][:, 0, 0])


def test_a_visit_is_another_scan_of_the_patient() -> None:
    cases = [case("a", "p"), case("b", "p", (64, 48, 24)), case("c", "q")]
    dataset = UnlabelledDataset(cases, Crops((8, 6, 4)), seed=0, positives="visit")
    for number in range(30):
        (one, _), (other, _) = dataset._draw(dataset.draws.of(number))
        assert one.row.patient == other.row.patient
        assert (one is other) == (one.row.patient == "q")


def test_crops_of_two_visits_have_no_common_place() -> None:
    batch = UnlabelledDataset([case("a", "p"), case("b", "p")], Crops((8, 6)), seed=0, positives="visit").__getitems__(range(4))
    assert batch["corner"].isnan().all()


def test_scans_of_a_patient_have_its_number() -> None:
    dataset = UnlabelledDataset([case("a", "p"), case("b", "p"), case("c", "q")], Crops((8, 6)), seed=0)
    assert set(dataset.__getitems__(range(30))["patient"].tolist()) == {0, 1}


def test_spellings_of_a_patient_are_one_patient() -> None:
    dataset = UnlabelledDataset([case("a", "Pat 1"), case("b", "PAT1 ")], Crops((8, 6)), seed=0, positives="visit")
    batch = dataset.__getitems__(range(10))
    assert set(batch["patient"].tolist()) == {0}
    assert batch["corner"].isnan().all()  # pairs of two scans


def test_what_is_known_of_a_sequence_holds_for_its_neighbouring_slices() -> None:
    one = replace(case("a", "p", channels=2), levels=(1.0, 2.0), present=(True, False))
    batch = UnlabelledDataset([one], Crops((8, 6), context=3), seed=0).__getitems__([0])
    assert batch["level"].tolist() == [[[1, 1, 1, 2, 2, 2]]]
    assert batch["present"].tolist() == [[[True] * 3 + [False] * 3]]


def test_a_sentence_comes_as_bytes() -> None:
    text = UnlabelledDataset([case("a", "p")], Crops((8, 6)), seed=0, text_bytes=256)[0]["text"]
    assert bytes(text.tolist()).rstrip(b"\0") == b"no lesion"


def test_the_same_number_is_the_same_sample_in_any_batch() -> None:
    first, again = (UnlabelledDataset([case("a", "p")], Crops((8, 6)), seed=3, positives="overlap") for _ in range(2))
    assert first.__getitems__([4, 9])["image"][1].equal(again[9]["image"])


def test_a_visit_with_fewer_slices_has_the_last_slice_too() -> None:
    cases = [case("a", "p", (64, 48, 60)), case("b", "p", (64, 48, 12))]
    dataset = UnlabelledDataset(cases, Crops((8, 6)), seed=0, positives="visit")
    assert dataset.__getitems__(range(60))["image"].shape == (60, 2, 1, 8, 6)
    assert _same_place((cases[0], [0, 0, 59]), cases[1]) == [0, 0, 11]


@pytest.mark.parametrize(("limit", "read"), [(256, "no lesion"), (4, "no l"), (0, "")])
def test_sentences_are_as_long_as_the_longest_or_cut_at_the_limit(limit: int, read: str) -> None:
    text = UnlabelledDataset([case("a", "p")], Crops((8, 6)), seed=0, text_bytes=limit)[0]["text"]
    assert bytes(text.tolist()) == read.encode()


@pytest.mark.parametrize("positives", ["same", "overlap", "visit"])
def test_crops_are_centred_on_the_body(positives: Positives) -> None:
    image = np.zeros((1, 64, 64, 24), np.float32)
    image[:, 40:56, 8:24, 10:14] = 1
    row = ManifestRow(scan_id="a", patient="p", image="a")
    one = Case(row, InMemory(encode(image)), image.shape, -1, True, np.arange(3), (0.5,), (True,))
    dataset = UnlabelledDataset([one], Crops((8, 8, 4)), seed=0, positives=positives)
    assert (dataset.__getitems__(range(50))["image"][:, 0].flatten(1).amax(dim=1) == 1).all()
