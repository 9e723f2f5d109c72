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


SHAPES = {"2d": ("[4, 4]", "[16, 16]"), "3d": ("[4, 4, 2]", "[16, 16, 4]")}  # patch and crop


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("method", ["simclr", "moco", "vicreg", "triplet", "dino", "hybrid"])
def test_a_recipe_ends_with_an_encoder(tmp_path: Path, store: Path, root: Path, method: str, dims: str) -> None:
    patch, size = SHAPES[dims]
    shape = {"objective.init_args.encoder.init_args.patch": patch, "feed.crops.size": size}
    options = [part for name, value in (SMALL | shape).items() for part in (f"--{name}", value)]
    config = str(root / "configs" / "pretrain" / f"{method}_{dims}.yaml")
    launch_pretrain(["--config", config, "--feed.store", str(store), *options, "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").kind == "encoder"
