"""Every recipe of masked pretraining runs from its file, made small by overrides."""

from pathlib import Path

import pytest

from medssl.models.bundle import Bundle
from medssl.training.launch import launch_pretrain

VIT = {"width": "16", "depth": "1", "heads": "2", "in_channels": "1"}
STAGES = {"stage_widths": "[4, 6, 8]", "stage_blocks": "[1, 1, 1]", "in_channels": "1"}
ENCODERS = {"mae": VIT, "simmim": VIT, "spark": STAGES}
SIZES = {
    "mae_2d": ("[16, 16]", {"encoder.init_args.patch": "[4, 4]"}),
    "mae_3d": ("[16, 16, 4]", {"encoder.init_args.patch": "[4, 4, 4]"}),
    "simmim_2d": ("[16, 16]", {"encoder.init_args.patch": "[4, 4]", "block": "[8, 8]"}),
    "simmim_3d": ("[16, 16, 4]", {"encoder.init_args.patch": "[4, 4, 4]", "block": "[8, 8, 4]"}),
    "spark_2d": ("[16, 16]", {}),
    "spark_3d": ("[16, 16, 4]", {"block": "[4, 4, 4]"}),
}


@pytest.mark.parametrize("recipe", SIZES)
def test_a_recipe_ends_with_an_encoder_and_pictures(tmp_path: Path, store: Path, root: Path, recipe: str) -> None:
    size, changed = SIZES[recipe]
    encoder = {f"encoder.init_args.{name}": value for name, value in ENCODERS[recipe.split("_")[0]].items()}
    objective = {f"objective.init_args.{name}": value for name, value in {**encoder, **changed}.items()}
    training = {"training.steps": "2", "training.checkpoint_steps": "2", "training.precision": "32-true"}
    feed = {"feed.store": str(store), "feed.crops.size": size, "feed.crops.context": "1", "feed.batch_size": "2"}
    options = [part for name, value in {**objective, **feed, **training}.items() for part in (f"--{name}", value)]
    launch_pretrain(["--config", str(root / "configs" / "pretrain" / f"{recipe}.yaml"), *options, "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").kind == "encoder"
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 1
