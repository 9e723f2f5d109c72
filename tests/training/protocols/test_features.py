from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medssl.data.dataset import Crops, load_cases
from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.models.vit import ViT
from medssl.training.protocols import features
from medssl.training.protocols.features import asked, told

CROPS = Crops((16, 16))


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT((4, 4), width=16, depth=1, heads=2, drop_path=0.5)


def test_a_bag_has_the_mean_of_its_slices() -> None:
    encoder, bags = vit(), torch.randn(2, 3, 1, 8, 8)
    slow = torch.stack([asked(encoder, bag, dense=False).mean(dim=0) for bag in bags])
    assert torch.allclose(asked(encoder, bags, dense=False), slow, atol=1e-6)


def test_an_encoder_is_asked_in_evaluation_mode_and_left_in_its_own() -> None:
    encoder, images = vit().train(), torch.randn(4, 1, 8, 8)
    first = asked(encoder, images, dense=False)
    assert encoder.training
    assert first.equal(asked(encoder, images, dense=False))


def test_cells_with_lesion_come_first_up_to_half(store: Path) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    known = told(vit(), cases, CROPS, task="segmentation", count=8, seed=0)
    assert known.features.shape == (8, 16)
    assert 0 < int((known.answers >= 0.5).sum()) <= 4
    assert sorted(set(known.patients)) == ["p0", "p1"]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_same_seed_gives_the_same_features(store: Path, task: str) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    first, again = (told(vit(), cases, CROPS, task=task, count=8, seed=3) for _ in range(2))  # type: ignore[arg-type]
    assert first.features.equal(again.features)
    assert first.answers.equal(again.answers)


def test_an_encoder_is_asked_on_the_device_that_trains_and_left_where_it_was(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, chosen, moves = vit(), torch.device("cpu:0"), list[str]()
    to = encoder.to
    monkeypatch.setattr(features, "own_device", lambda: chosen)
    monkeypatch.setattr(features, "asked", lambda *given, **how: moves.append("asked") or asked(*given, **how))
    monkeypatch.setattr(encoder, "to", lambda device: moves.append(str(device)) or to(device))
    told(encoder, load_cases(Store(store), Store(store).manifest.split("train")), CROPS, task="segmentation", count=8, seed=0)
    assert moves == ["cpu:0", "asked", "asked", "cpu"]


def test_spellings_of_a_patient_are_one_patient_to_its_neighbours(store: Path) -> None:
    rows = Store(store).manifest.rows
    spelled = [replace(row, patient=patient) for row, patient in zip(rows, ("Pat 3", "pat3", "p2", "p4"), strict=True)]
    Manifest(tuple(spelled)).write(store / "manifest.csv")
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    assert set(told(vit(), cases, CROPS, task="classification", count=8, seed=0).patients) == {"Pat 3"}
