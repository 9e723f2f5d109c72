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


DENSE = "{spatial_dims: 2, in_channels: 1, out_channels: 1, init_features: 4, growth_rate: 4, block_config: [1, 1]}"


@pytest.mark.parametrize(("method", "block"), [("simclr", None), ("simmim", "[8, 8]")])
def test_a_recipe_of_a_dense_net_ends_with_an_encoder(tmp_path: Path, store: Path, root: Path, method: str, block: str | None) -> None:
    encoder = "objective.init_args.encoder.init_args"
    shape = {f"{encoder}.arguments": DENSE, f"{encoder}.crop": "[32, 32]", "feed.crops.size": "[32, 32]"}
    shape |= {} if block is None else {"objective.init_args.block": block}
    small = {name: value for name, value in (SMALL | shape).items() if not name.startswith(encoder) or name in shape}
    options = [part for name, value in small.items() for part in (f"--{name}", value)]
    config = str(root / "configs" / "pretrain" / f"dense_{method}_2d.yaml")
    launch_pretrain(["--config", config, "--feed.store", str(store), *options, "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").kind == "encoder"
