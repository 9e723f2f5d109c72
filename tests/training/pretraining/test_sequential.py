"""Pretraining that goes on with another bundle, and pretraining on sentences, from their recipes."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medssl.data.manifest import Manifest
from medssl.data.seen import counts
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.models.bundle import Bundle
from medssl.models.vit import ViT
from medssl.objectives.hybrid import Hybrid
from medssl.training.launch import launch_pretrain
from medssl.training.start import start_from
from tests.training.pretraining.test_pretrain_configs import SMALL


def launched(root: Path, store: Path, recipe: str, out: Path, **options: str) -> Bundle:
    """Run a recipe, made small."""
    settings = [part for name, value in {**SMALL, **options}.items() for part in (f"--{name}", value)]
    config = str(root / "configs" / "pretrain" / f"{recipe}.yaml")
    return launch_pretrain(["--config", config, "--feed.store", str(store), *settings, "--out", str(out)])


def test_a_masked_run_goes_on_with_the_encoder_of_a_contrastive_one(tmp_path: Path, store: Path, root: Path) -> None:
    first = launched(root, store, "sequential_1_contrast_2d", tmp_path / "one", split="val")
    second = launched(root, store, "sequential_2_masked_2d", tmp_path / "two", bundle=str(tmp_path / "one" / "bundle"))
    assert second.lineage == (first.model_id,)
    assert counts(first.seen) == {"pretraining": 2}
    assert counts(second.seen) == {"pretraining": 4}  # other scans than those of the first
    weights = [load_file(tmp_path / name / "bundle" / "weights.safetensors") for name in ("one", "two")]
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 0.01  # two small steps further
    assert first.model_id in (tmp_path / "two" / "bundle" / "MODEL_CARD.md").read_text()


def test_a_teacher_starts_from_the_bundle_too(tmp_path: Path, store: Path, root: Path) -> None:
    launched(root, store, "sequential_1_contrast_2d", tmp_path / "one")
    objective = Hybrid(ViT([4, 4], in_channels=3, width=16, depth=1, heads=2))
    start_from(objective, tmp_path / "one" / "bundle", Store(store))
    weights = load_file(tmp_path / "one" / "bundle" / "weights.safetensors")
    assert objective.teacher is not None
    for encoder in (objective.encoder, objective.teacher.module):
        assert all(weights[name].equal(tensor) for name, tensor in encoder.state_dict().items())


def test_an_encoder_unlike_the_one_of_the_bundle_is_refused(tmp_path: Path, store: Path, root: Path) -> None:
    launched(root, store, "sequential_1_contrast_2d", tmp_path / "one")
    other = {"bundle": str(tmp_path / "one" / "bundle"), "objective.init_args.encoder.init_args.depth": "2"}
    with pytest.raises(ConfigError, match="encoder differs"):
        launched(root, store, "sequential_2_masked_2d", tmp_path / "two", **other)


def test_sentences_are_learned_from_and_written_nowhere(tmp_path: Path, store: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = Store(store).manifest.rows
    Manifest(tuple(replace(row, report=f"Secret finding {row.scan_id}.") for row in rows)).write(store / "manifest.csv")
    options = {"objective.init_args.text.init_args.width": "16"}
    bundle = launched(root, store, "image_text_2d", tmp_path / "run", **options)
    assert bundle.training["objective"] == "ImageText"
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path.name for path in files if b"Secret" in path.read_bytes()] == []
    assert "Secret" not in caplog.text


def test_a_store_without_sentences_is_refused(tmp_path: Path, store: Path, root: Path) -> None:
    with pytest.raises(ManifestError, match="column report"):
        launched(root, store, "image_text_2d", tmp_path / "run")
    assert not (tmp_path / "run").exists()
