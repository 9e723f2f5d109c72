"""Every recipe runs from its file, made small by overrides."""

from pathlib import Path

import pytest

from medssl.models.bundle import Bundle
from medssl.training.launch import launch_pretrain

ENCODER = {"patch": "[4, 4]", "width": "16", "depth": "1", "heads": "2"}
SMALL = {
    **{f"objective.init_args.encoder.init_args.{name}": value for name, value in ENCODER.items()},
    "feed.crops.size": "[16, 16]",
    "feed.batch_size": "4",
    "training.steps": "2",
    "training.checkpoint_steps": "2",
    "training.precision": "32-true",
}


@pytest.mark.parametrize("recipe", ["simclr_2d", "moco_2d", "vicreg_2d", "triplet_2d", "dino_2d", "hybrid_2d"])
def test_a_recipe_ends_with_an_encoder(tmp_path: Path, store: Path, root: Path, recipe: str) -> None:
    options = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    config = str(root / "configs" / "pretrain" / f"{recipe}.yaml")
    launch_pretrain(["--config", config, "--feed.store", str(store), *options, "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").kind == "encoder"
