"""Whether labels, masks, network and loss of a run fit each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.classes import Classes
from medssl.data.dataset import Case, Crops, load_cases
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.models.architecture import Network
from medssl.models.detector import CentreDetector
from medssl.models.heads import AttentionClassifier, Classifier
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.residual_unet import ResidualUNet
from medssl.models.vit import ViT
from medssl.training.finetuning.labelled import channel_weights, check_cases, check_loss, outputs_of, patients_by_class, targets
from medssl.training.losses import CrossEntropy, Focal, Tversky
from tests.training.finetuning.classes_store import write_classes

BREAST = Classes(("normal", "benign", "malignant"))
TUMOUR = Classes(("oedema", "core"), mask_values=(2, 4))


def classifier(classes: int = 1, dims: int = 3) -> Network:
    return Classifier(ViT((4,) * dims, width=8, depth=1, heads=1), classes=classes)


def segmenter(classes: int = 1) -> Network:
    return ResidualUNet(classes=classes, widths=(2, 4))


def cases(folder: Path, labels: list[str], classes: Classes, *, values: list[tuple[int, ...]] | None = None) -> list[Case]:
    store = Store(write_classes(folder / "store", labels, values=values))
    return load_cases(store, store.manifest.split("train"), classes=classes)


def test_a_class_without_a_training_patient_is_named_with_the_counts(tmp_path: Path) -> None:
    found = cases(tmp_path, ["normal", "benign"], BREAST)
    with pytest.raises(ManifestError, match=r"'malignant' has no patient in split 'train' \(normal 2, benign 2, malignant 0\)"):
        check_cases(classifier(3), found, split="train")


def test_a_class_of_masks_without_a_training_patient_is_named(tmp_path: Path) -> None:
    found = cases(tmp_path, ["", ""], TUMOUR, values=[(2,), ()])
    with pytest.raises(ManifestError, match=r"'core' has no patient in split 'train' \(oedema 2, core 0\)"):
        check_cases(segmenter(3), found, split="train")


def test_exclusive_classes_of_a_classifier_that_are_all_positive_are_refused() -> None:
    both = Classes(("benign", "malignant"))
    with pytest.raises(ConfigError, match=r"every scan would score 1; name those that verdicts are about in labels.positive"):
        outputs_of(both, classifier(2))
    assert outputs_of(both, segmenter(3)).positive == ("benign", "malignant")
    assert outputs_of(Classes(both.names, ("malignant",)), classifier(2)).positive == ("malignant",)


def test_a_classifier_of_lesion_against_none_needs_both(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'no lesion' has no patient"):
        check_cases(classifier(), cases(tmp_path, ["lesion", "lesion"], Classes()), split="train")


def test_slices_without_lesion_are_examples_of_none(tmp_path: Path) -> None:
    found = cases(tmp_path, ["lesion"], Classes(), values=[(1,)])
    assert targets(classifier(dims=2), found[0]) == [(1,), (1,), (0,), (0,)]
    assert {name: len(held) for name, held in patients_by_class(classifier(dims=2), found).items()} == {"lesion": 2, "no lesion": 2}


@pytest.mark.parametrize(("label", "held", "said"), [("malignant", (), "an empty mask"), ("normal", (1,), "a mask with lesion")])
def test_a_label_that_contradicts_its_mask_is_named(tmp_path: Path, label: str, held: tuple[int, ...], said: str) -> None:
    found = cases(tmp_path, [label], Classes(), values=[held])
    with pytest.raises(ManifestError, match=rf"label_mismatch: 2 scans have {said} and a label that says otherwise: s00 \({label}\)"):
        check_cases(classifier(), found, split="train")


def test_a_loss_of_masks_is_not_for_classifiers() -> None:
    with pytest.raises(ConfigError, match="Tversky is a loss of masks"):
        check_loss(Tversky(), classifier(), Crops((8, 8, 8)))


def test_bags_are_for_networks_that_pool_slices() -> None:
    pooled = AttentionClassifier(ViT((4, 4), width=8, depth=1, heads=1))
    with pytest.raises(ConfigError, match="needs crops.bag above 1"):
        check_loss(None, pooled, Crops((8, 8)))
    with pytest.raises(ConfigError, match=r"needs crops.bag 1, got 4"):
        check_loss(None, classifier(dims=2), Crops((8, 8), bag=4))


def test_voxels_of_several_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="multi_label is for classifiers"):
        outputs_of(Classes(("a", "b"), multi_label=True), segmenter(3))


def weighed(network: Network, found: list[Case], loss: CrossEntropy) -> list[list[float]]:
    network.outputs = outputs_of(found[0].classes, network)
    weights = channel_weights(loss, network, found)
    assert weights is not None
    return weights.tolist()


def test_balanced_weights_of_classes_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    names = ["normal", "benign", "benign", "malignant", "benign"]
    found = cases(tmp_path, names, BREAST)
    index = [BREAST.names.index(name) for name in names * 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=index)
    assert weighed(classifier(3), found, Focal(weights="balanced"))[1] == pytest.approx(list(expected))


def test_balanced_weights_of_one_logit_even_out_lesion_and_none(tmp_path: Path) -> None:
    found = cases(tmp_path, ["lesion", "normal", "normal", "normal"], Classes())
    none, lesion = weighed(classifier(), found, CrossEntropy(weights="balanced"))
    assert (none[0], lesion[0]) == (pytest.approx(8 / (2 * 6)), pytest.approx(8 / (2 * 2)))


def test_balanced_weights_of_voxels_count_the_masks(tmp_path: Path) -> None:
    found = cases(tmp_path, ["", ""], TUMOUR, values=[(2, 4), (4,)])
    voxels = [sum(int((case.class_mask() == number).sum()) for case in found) for number in range(3)]
    expected = [sum(voxels) / (3 * count) for count in voxels]
    assert weighed(segmenter(3), found, CrossEntropy(weights="balanced"))[1] == pytest.approx(expected)


def test_weights_may_be_given_for_each_channel(tmp_path: Path) -> None:
    found = cases(tmp_path, ["normal"], BREAST)
    assert weighed(classifier(3), found, CrossEntropy(weights=(1.0, 2.0, 3.0))) == [[1.0] * 3, [1.0, 2.0, 3.0]]
    with pytest.raises(ConfigError, match="needs 3 numbers"):
        weighed(classifier(3), found, CrossEntropy(weights=(1.0, 2.0)))


def test_equal_weights_are_no_weights(tmp_path: Path) -> None:
    assert channel_weights(CrossEntropy(), classifier(), cases(tmp_path, ["lesion"], Classes())) is None
    assert torch.is_tensor(channel_weights(CrossEntropy(weights=(1.0, 2.0)), classifier(), []))


def test_what_masks_hold_and_no_class_names_is_refused_with_counts(tmp_path: Path) -> None:
    found = cases(tmp_path, ["", "", ""], TUMOUR, values=[(2, 4), (2, 7), (7,)])
    with pytest.raises(ManifestError, match=r"no class is named for what masks hold: 7 \(4 scans\); labels.mask_values are \[2, 4\]"):
        check_cases(segmenter(3), found, split="train")


def test_a_mask_of_lesion_against_none_that_no_class_names_is_refused(tmp_path: Path) -> None:
    found = cases(tmp_path, ["", ""], TUMOUR, values=[(2, 4), (1,)])
    with pytest.raises(ManifestError, match=r"no class is named for what masks hold: 1 \(2 scans\)"):
        check_cases(segmenter(3), found, split="train")


def test_a_mask_without_a_label_is_refused_where_labels_tell_classes_apart(tmp_path: Path) -> None:
    found = cases(tmp_path, ["benign", "malignant", ""], Classes(("benign", "malignant")), values=[(1,), (1,), (1,)])
    with pytest.raises(ManifestError, match=r"2 scans have a mask of lesion against none and no label .*: s02, s12"):
        check_cases(segmenter(3), found, split="train")


def test_a_mask_of_the_first_class_alone_needs_no_label_where_masks_tell_classes_apart(tmp_path: Path) -> None:
    found = cases(tmp_path, ["", ""], Classes(("oedema", "core")), values=[(1, 2), (1,)])
    check_cases(segmenter(3), found, split="train")
    assert found[1].numbers == {1: 1}


def test_a_lesion_that_is_not_positive_is_an_example_of_its_class(tmp_path: Path) -> None:
    found = cases(tmp_path, ["benign", "malignant"], Classes(("benign", "malignant"), positive=("malignant",)), values=[(1,), (1,)])
    assert {name: len(held) for name, held in patients_by_class(segmenter(3), found).items()} == {"benign": 2, "malignant": 2}


def test_scans_that_thresholds_are_chosen_on_may_not_contradict_themselves(tmp_path: Path) -> None:
    train = cases(tmp_path / "train", ["lesion", "normal"], Classes(), values=[(1,), ()])
    held = cases(tmp_path / "held", ["normal"], Classes(), values=[(1,)])
    check_cases(classifier(), train, split="train")
    with pytest.raises(ManifestError, match="a mask with lesion and a label that says otherwise"):
        check_cases(classifier(), train, split="train", held=[replace(one, row=replace(one.row, scan_id="other")) for one in held])


def test_one_class_alone_is_refused_for_a_classifier() -> None:
    with pytest.raises(ConfigError, match="name the class of nothing there too"):
        outputs_of(Classes(("tumour",)), classifier())
    assert outputs_of(Classes(("tumour",), multi_label=True), classifier()).channels == 1


def test_a_detector_is_told_that_it_has_no_classes() -> None:
    detector = CentreDetector(ResidualEncoder(spatial_dims=2, stage_widths=(4, 6), stage_blocks=(1, 1)))
    with pytest.raises(ConfigError, match="a detector finds lesion against none; leave labels.classes out"):
        outputs_of(Classes(("a", "b")), detector)
