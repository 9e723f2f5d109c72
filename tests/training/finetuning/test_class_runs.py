"""Fine-tuning of every task of named classes, from a store to the numbers of a report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.models.bundle import Bundle
from medssl.report.write import write_report
from medssl.scoring.finding import Finding
from medssl.scoring.folder import score_split
from medssl.scoring.predictor import Predictor
from medssl.training.launch import launch_finetune
from tests.training.finetuning.classes_store import write_classes

ENCODER = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4], "width": 16, "depth": 1, "heads": 2}}
VOLUMES = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4, 4], "width": 16, "depth": 1, "heads": 2}}
BREAST = ["normal", "benign", "malignant"]
TUMOUR = {"classes": ["oedema", "core"], "mask_values": [2, 4]}


def settings(store: Path, network: str, *, classes: int, labels: dict[str, Any], encoder: dict[str, Any] = ENCODER) -> dict[str, Any]:
    size = [16] * len(encoder["init_args"]["patch"][:2]) + [4] * (len(encoder["init_args"]["patch"]) - 2)
    return {
        "network": {"class_path": f"medssl.models.{network}", "init_args": {"encoder": encoder, "classes": classes}},
        "feed": {"crops": {"size": size}, "batch_size": 4, "store": str(store)},
        "training": {"steps": 2, "checkpoint_steps": 2, "precision": "32-true"},
        "labels": labels,
    }


def tuned(folder: Path, config: dict[str, Any]) -> Bundle:
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(config))
    return launch_finetune(["--config", str(path), "--out", str(folder / "run")])


def reported(folder: Path, store: Path) -> dict[str, Any]:
    score_split(Predictor(folder / "run" / "bundle"), Store(store), "test", folder / "results")
    return write_report(folder / "results", folder / "results")


def findings(folder: Path) -> list[Finding]:
    return [Finding.read(path) for path in sorted((folder / "results" / "scans").glob("*.json"))]


def test_one_class_of_several_is_learned_and_reported(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", BREAST)
    config = settings(store, "heads.Classifier", classes=3, labels={"classes": BREAST, "positive": ["malignant"]}, encoder=VOLUMES)
    config["feed"]["crops"] |= {"balanced": True}
    config["loss"] = {"class_path": "medssl.training.losses.Focal", "init_args": {"weights": "balanced", "smoothing": 0.1}}
    bundle = tuned(tmp_path, config)
    assert (bundle.class_names, bundle.outputs.names) == (("malignant",), tuple(BREAST))
    record = reported(tmp_path, store)["classes"]
    assert record["scan"]["n"] == record["patient"]["n"] == 3
    assert sum(map(sum, record["scan"]["confusion"])) == 3
    for finding in findings(tmp_path):
        assert sum(finding.class_scores.values()) == pytest.approx(1)
        assert finding.score == pytest.approx(finding.class_scores["malignant"])
    assert "AUROC against the rest" in (tmp_path / "results" / "report.html").read_text()


def test_several_labels_of_a_scan_are_learned_and_reported(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", ["nodule;effusion", "effusion", "normal"])
    labels = {"classes": ["nodule", "effusion"], "multi_label": True}
    bundle = tuned(tmp_path, settings(store, "heads.Classifier", classes=2, labels=labels, encoder=VOLUMES))
    assert not bundle.outputs.exclusive
    record = reported(tmp_path, store)["classes"]
    assert {name: part["n"] for name, part in record["scan"]["by_class"].items()} == {"nodule": 1, "effusion": 2}
    for finding in findings(tmp_path):
        assert finding.score == pytest.approx(max(finding.class_scores.values()))


def test_labels_of_scans_train_an_encoder_of_slices_by_attention(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", BREAST)
    config = settings(store, "heads.AttentionClassifier", classes=3, labels={"classes": BREAST})
    config["feed"]["crops"] |= {"bag": 3}
    tuned(tmp_path, config)
    assert reported(tmp_path, store)["classes"]["scan"]["n"] == 3
    assert all(len(finding.slice_scores) == 1 for finding in findings(tmp_path))


@pytest.mark.parametrize("dims", [2, 3])
def test_classes_of_a_mask_are_segmented_and_reported(tmp_path: Path, dims: int) -> None:
    store = write_classes(tmp_path / "store", ["", ""], values=[(2, 4), (4,)])
    encoder = {
        "class_path": "medssl.models.residual_encoder.ResidualEncoder",
        "init_args": {"spatial_dims": dims, "stage_widths": [4, 8], "stage_blocks": [1, 1]},
    }
    config = settings(store, "unet.PyramidUNet", classes=3, labels={**TUMOUR, "positive": ["core"]})
    config["network"]["init_args"] |= {"encoder": encoder, "deep_supervision": True}
    config["feed"]["crops"]["size"] = [16, 16, 4][:dims]
    config["loss"] = {"class_path": "medssl.training.losses.DiceCrossEntropy", "init_args": {"weights": "balanced"}}
    config["training"] |= {"steps": 40, "learning_rate": 0.02}  # until lesions are found
    bundle = tuned(tmp_path, config)
    assert (bundle.class_names, bundle.outputs.background) == (("core",), True)
    record = reported(tmp_path, store)["classes"]
    assert set(record["segmentation"]) == {"oedema", "core"}
    assert record["segmentation"]["core"]["n"] == 2
    assert {lesion.class_name for finding in findings(tmp_path) for lesion in finding.lesions} == {"core"}


def test_a_mask_of_lesion_against_none_is_segmented_by_the_class_of_its_scan(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", BREAST, values=[(), (1,), (1,)])
    config = settings(store, "decoder.ViTSegmenter", classes=3, labels={"classes": ["benign", "malignant"]})
    tuned(tmp_path, config)
    record = reported(tmp_path, store)["classes"]
    assert {name: part["n"] for name, part in record["scan"]["by_class"].items()} == {"benign": 1, "malignant": 1}


def test_another_number_of_channels_is_named(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", BREAST)
    with pytest.raises(ConfigError, match="1 output channels, 3 named classes need 3"):
        tuned(tmp_path, settings(store, "heads.Classifier", classes=1, labels={"classes": BREAST}, encoder=VOLUMES))


def test_an_unknown_class_is_named_before_training(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", [*BREAST, "cyst"])
    with pytest.raises(ManifestError, match=r"does not name 'cyst' \(\d scans\)"):
        tuned(tmp_path, settings(store, "heads.Classifier", classes=3, labels={"classes": BREAST}, encoder=VOLUMES))


def test_a_misspelt_positive_class_is_named_before_training(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", BREAST)
    with pytest.raises(ManifestError, match=r"labels.positive names \['malignent'\]"):
        tuned(tmp_path, settings(store, "heads.Classifier", classes=1, labels={"positive": ["malignent"]}, encoder=VOLUMES))
    assert not (tmp_path / "run").exists()


def test_a_contradiction_in_validation_is_named_before_training(tmp_path: Path) -> None:
    store = Store(write_classes(tmp_path / "store", ["lesion", "normal"], values=[(1,), ()]))
    rows = tuple(replace(row, label="normal") if row.split == "val" else row for row in store.manifest.rows)
    Manifest(rows).write(store.folder / "manifest.csv")
    with pytest.raises(ManifestError, match=r"1 scans have a mask with lesion and a label that says otherwise: s20"):
        tuned(tmp_path, settings(store.folder, "heads.Classifier", classes=1, labels={}, encoder=VOLUMES))
    assert not (tmp_path / "run").exists()


def test_a_contradiction_in_the_test_is_named_before_anything_is_scored(tmp_path: Path) -> None:
    store = Store(write_classes(tmp_path / "store", ["lesion", "normal"], values=[(1,), ()]))
    tuned(tmp_path, settings(store.folder, "heads.Classifier", classes=1, labels={}, encoder=VOLUMES))
    rows = tuple(replace(row, label="normal") if row.split == "test" else row for row in store.manifest.rows)
    Manifest(rows).write(store.folder / "manifest.csv")
    with pytest.raises(ManifestError, match=r"1 scans have a mask with lesion and a label that says otherwise: s30"):
        reported(tmp_path, store.folder)
    assert not (tmp_path / "results").exists()


def test_a_bundle_of_lesion_against_none_says_nothing_of_channels(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", ["lesion", "normal"])
    tuned(tmp_path, settings(store, "heads.Classifier", classes=1, labels={}, encoder=VOLUMES))
    assert '"outputs"' not in (tmp_path / "run" / "bundle" / "bundle.json").read_text()
    assert "classes" not in reported(tmp_path, store)


def test_a_fold_without_a_patient_of_a_class_is_named_before_the_first_one_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_classes(tmp_path / "store", BREAST)
    by_class = [number % 3 == 2 for number in range(9)]  # the third fold holds every malignant scan
    monkeypatch.setattr(
        "medssl.training.finetuning.folds.fold_numbers", lambda rows, **_: [2 if by_class[n] else n % 2 for n in range(len(rows))]
    )
    config = settings(store, "heads.Classifier", classes=3, labels={"classes": BREAST}, encoder=VOLUMES)
    with pytest.raises(ManifestError, match=r"class 'malignant' has no patient in split 'fold 2'"):
        tuned(tmp_path, {**config, "folds": {"count": 3}})
    assert not (tmp_path / "run").exists()


SMALL_VIT = {"network.init_args.encoder.init_args": {"patch": "[4, 4]", "width": "16", "depth": "1", "heads": "2", "in_channels": "1"}}
SMALL_UNET = {"network.init_args.encoder.init_args": {"stage_widths": "[4, 8]", "stage_blocks": "[1, 1]", "in_channels": "1"}}
DENSE = "{spatial_dims: 2, in_channels: 1, out_channels: 1, init_features: 4, growth_rate: 4, block_config: [1, 1]}"
SMALL_DENSE = {"network.init_args.encoder.init_args": {"arguments": DENSE, "crop": "[32, 32]"}}
RECIPES = {
    "busi_classifier": (SMALL_DENSE, "[32, 32]", BREAST, None),
    "busi_segmenter": (SMALL_VIT, "[16, 16]", BREAST, [(), (1,), (1,)]),
    "brats_segmenter": (SMALL_UNET, "[16, 16, 4]", [""], [(1, 2, 3, 4)]),
    "scan_attention_2d": (SMALL_VIT, "[16, 16]", ["lesion", "normal"], None),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_classes_runs_from_its_file(tmp_path: Path, root: Path, recipe: str) -> None:
    sizes, crop, labels, values = RECIPES[recipe]
    store = write_classes(tmp_path / "store", labels, values=values)
    given = {f"{prefix}.{name}": value for prefix, options in sizes.items() for name, value in options.items()}
    given |= {"feed.store": str(store), "feed.crops.size": crop, "feed.crops.context": "1", "feed.batch_size": "2"}
    given |= {"training.steps": "1", "training.precision": "32-true"} | ({"feed.crops.bag": "3"} if "attention" in recipe else {})
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    config = root / "configs" / "finetune" / "classes" / f"{recipe}.yaml"
    bundle = launch_finetune(["--config", str(config), *options, "--out", str(tmp_path / "run")])
    assert bundle.operating_points["scan"]["unit"] == "scan"
