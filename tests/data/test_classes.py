"""Labels and masks as classes, and crops that are drawn by class."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.classes import Classes, check_known, check_positive, scan_label
from medssl.data.dataset import Case, CropDataset, Crops, cut, load_cases
from medssl.data.entry import Bits, encode
from medssl.data.manifest import ManifestRow, label_of
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.models.inference import fitted
from tests.training.finetuning.classes_store import write_classes

BREAST = Classes(("normal", "benign", "malignant"), positive=("malignant",))
FINDINGS = Classes(("nodule", "effusion"), multi_label=True)
TUMOUR = Classes(("oedema", "core"), mask_values=(2, 4))


def row(label: str = "", **values: str) -> ManifestRow:
    return ManifestRow(scan_id="a", patient="p", image="a.png", label=label, **values)  # type: ignore[arg-type]


@dataclass
class InMemory:
    """One scan and its mask."""

    stored: np.ndarray
    lesion: np.ndarray

    def image(self, row: ManifestRow) -> np.ndarray:
        del row
        return self.stored

    def mask(self, row: ManifestRow) -> Bits:
        del row
        return Bits.of(self.lesion, axis=3)


def case(label: str, classes: Classes, *, marks: dict[tuple[int, int, int], int] | None = None, slices: int = 4) -> Case:
    image = encode(np.random.default_rng(0).normal(size=(1, 16, 16, slices)))
    mask = np.zeros((1, 16, 16, slices), np.uint8)
    for place, value in (marks or {}).items():
        mask[(0, *place)] = value
    values = () if mask.max() < 2 else tuple(np.unique(mask[mask > 0]).tolist())
    value_slices = {value: tuple(np.flatnonzero((mask == value).any(axis=(0, 1, 2))).tolist()) for value in values}
    lesion_slices = np.flatnonzero(mask.any(axis=(0, 1, 2)))
    scan = row(label)
    arrays = InMemory(image, mask)
    return Case(
        scan, arrays, (1, 16, 16, slices), scan_label(scan), marks is not None, lesion_slices, classes=classes, value_slices=value_slices
    )


def test_one_class_a_scan_is_its_place_in_the_list() -> None:
    assert [BREAST.target(row(name)) for name in ("malignant", "normal", "")] == [(2,), (0,), (-1,)]


def test_several_classes_a_scan_are_a_number_each() -> None:
    found = [FINDINGS.target(row(label)) for label in ("nodule;effusion", "effusion", "normal", "")]
    assert found == [(1, 1), (0, 1), (0, 0), (-1, -1)]


def test_without_names_all_is_lesion_against_none() -> None:
    assert [Classes().target(row(label)) for label in ("benign", "normal", "")] == [(1,), (0,), (-1,)]


def test_a_scan_with_a_positive_class_among_several_is_positive() -> None:
    assert scan_label(row("nodule;effusion"), ("effusion",)) == 1
    assert scan_label(row("nodule"), ("effusion",)) == 0


def test_positive_are_all_classes_but_those_of_nothing_there() -> None:
    assert Classes(("normal", "benign", "malignant")).positives == ("benign", "malignant")
    assert BREAST.positives == ("malignant",)


def test_an_unknown_class_is_named_with_its_number_of_scans() -> None:
    with pytest.raises(ManifestError, match=r"does not name 'cyst' \(2 scans\)"):
        check_known(BREAST, [row("cyst"), row("benign"), row("cyst")])


def test_a_positive_class_that_no_label_names_is_refused_with_the_labels_that_there_are() -> None:
    rows = [row("malignant;cyst"), row("benign"), row()]
    check_positive(Classes(positive=("malignant", "cyst")), rows)
    check_positive(TUMOUR, rows)  # whose masks may name what no label does
    with pytest.raises(ManifestError, match=r"\['malignent'\], the labels of the store are \['benign', 'cyst', 'malignant'\]"):
        check_positive(Classes(positive=("malignent",)), rows)


def test_several_labels_where_one_is_learned_are_refused() -> None:
    with pytest.raises(ManifestError, match="labels.multi_label"):
        BREAST.target(row("benign;malignant"))


@pytest.mark.parametrize(
    "settings",
    [
        {"names": ("a", "a")},
        {"names": ("a",), "positive": ("b",)},
        {"names": ("a", "b"), "mask_values": (1,)},
        {"multi_label": True},
        {"names": ("normal", "control")},
        {"names": ("a;b",)},
    ],
)
def test_classes_that_contradict_themselves_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"labels\."):
        Classes(**settings)  # type: ignore[arg-type]


def test_a_table_may_name_several_classes_of_a_scan() -> None:
    assert label_of("nodule; effusion", "row 2") == "nodule;effusion"
    with pytest.raises(ManifestError, match="bad_label"):
        label_of("nodule;", "row 2")


def test_a_mask_of_lesion_against_none_is_of_the_class_of_its_scan() -> None:
    marked = case("malignant", BREAST, marks={(4, 4, 1): 1})
    numbers = marked.class_mask()
    assert numbers is not None
    assert (numbers.max(), numbers[0, 4, 4, 1]) == (3, 3)


def test_the_values_of_a_mask_become_numbers_of_classes() -> None:
    sample = cut(case("", TUMOUR, marks={(4, 4, 1): 2, (8, 8, 1): 4}), (8, 8, 1), Crops((16, 16)))
    assert (sample["lesion"][0, 4, 4], sample["lesion"][0, 8, 8], sample["lesion"].sum()) == (1, 2, 3)


def test_slices_without_lesion_are_of_the_class_of_nothing_there() -> None:
    marked = case("malignant", BREAST, marks={(4, 4, 1): 1})
    assert [int(cut(marked, (8, 8, k), Crops((16, 16)))["label"]) for k in range(3)] == [0, 2, 0]


def test_a_slice_has_the_classes_of_its_mask() -> None:
    marked = case("", Classes(("oedema", "core"), multi_label=True, mask_values=(2, 4)), marks={(4, 4, 1): 2, (5, 5, 2): 4})
    assert [cut(marked, (8, 8, k), Crops((16, 16)))["label"].tolist() for k in range(3)] == [[0, 0], [1, 0], [0, 1]]


def test_crops_on_lesion_are_drawn_evenly_over_classes() -> None:
    cases = [case("", TUMOUR, marks={(3, 3, 0): 2})] * 9 + [case("", TUMOUR, marks={(12, 12, 3): 4})]
    drawn = CropDataset(cases, Crops((8, 8), lesion_fraction=1.0), seed=0).__getitems__(range(200))["lesion"]
    found = Counter(drawn.flatten(1).amax(dim=1).tolist())
    assert set(found) == {1.0, 2.0}
    assert abs(found[2.0] - 100) < 30


def test_scans_are_drawn_evenly_over_classes_where_asked() -> None:
    cases = [case("benign", BREAST)] * 18 + [case("malignant", BREAST), case("normal", BREAST), case("", BREAST)]
    labels = CropDataset(cases, Crops((8, 8), balanced=True), seed=0).__getitems__(range(300))["label"]
    found = Counter(labels.tolist())
    assert set(found) == {0, 1, 2}
    assert all(abs(count - 100) < 30 for count in found.values())


def test_the_same_seed_draws_the_same_classes() -> None:
    cases = [case(name, BREAST) for name in ("benign", "malignant", "normal")]
    first, again = (CropDataset(cases, Crops((8, 8), balanced=True), seed=3).__getitems__(range(20)) for _ in range(2))
    assert first["label"].equal(again["label"])


def test_a_bag_holds_slices_from_all_over_one_scan() -> None:
    one = case("nodule", FINDINGS, slices=12)
    one.arrays.image(one.row)[0] = np.arange(12)  # type: ignore[attr-defined]
    batch = CropDataset([one], Crops((8, 8), bag=4), seed=0, fit=fitted).__getitems__(range(5))
    assert batch["image"].shape == (5, 4, 1, 8, 8)
    assert (batch["image"][:, :, 0, 0, 0] // 3).equal(torch.arange(4.0).expand(5, 4))
    assert batch["label"].tolist() == [[1, 0]] * 5


def test_lesions_of_a_class_that_is_not_positive_are_none_where_no_class_is_named() -> None:
    benign = case("benign", Classes(positive=("malignant",)), marks={(4, 4, 1): 1})
    sample = cut(benign, (4, 4, 1), Crops((8, 8)))
    assert (int(sample["label"]), int(sample["lesion"].sum())) == (0, 0)
    assert benign.slice_target(1) == (0,)
    assert benign.lesion is not None
    assert not benign.lesion.any()


def test_a_store_tells_the_lesions_of_others_from_those_of_positive_classes(tmp_path: Path) -> None:
    store = Store(write_classes(tmp_path / "store", ["benign", "malignant"], values=[(1,), (1,)]))
    benign, malignant = load_cases(store, store.manifest.split("val"), ("malignant",))
    assert (benign.lesion_slices.tolist(), malignant.lesion_slices.tolist()) == ([], [0, 1])
    assert CropDataset([benign, malignant], Crops((8, 8)), seed=0).with_lesion == [malignant]


def test_slices_of_a_class_that_is_not_positive_keep_their_class(tmp_path: Path) -> None:
    store = Store(write_classes(tmp_path / "store", ["benign"], values=[(1,)]))
    (benign,) = load_cases(store, store.manifest.split("val"), classes=BREAST)
    assert [benign.slice_target(k) for k in range(4)] == [(1,), (1,), (0,), (0,)]


def test_a_mask_of_255_alone_is_of_the_class_with_that_value() -> None:
    values = Classes(("oedema", "core"), mask_values=(128, 255))
    assert values.value_names(row(), ()) == {1: "core"}


def test_a_mask_of_lesion_against_none_is_of_the_only_class_that_is_a_lesion() -> None:
    assert Classes(("normal", "malignant")).value_names(row(), ()) == {1: "malignant"}
