"""Every recipe of fine-tuning runs from its file, made small by overrides."""

from pathlib import Path

import pytest

from medssl.models.bundle import Bundle
from medssl.scoring.predictor import Predictor
from medssl.training.launch import launch_finetune

VIT = {
    "encoder.init_args.width": "16",
    "encoder.init_args.depth": "1",
    "encoder.init_args.heads": "2",
    "encoder.init_args.in_channels": "1",
}
RESENC = {
    "encoder.init_args.stage_widths": "[4, 8]",
    "encoder.init_args.stage_blocks": "[1, 1]",
    "encoder.init_args.in_channels": "1",
}
PRIMUS = {"encoder.init_args.patch": "[8, 8, 4]"}
SWIN = {
    "encoder.init_args.arguments": "{in_channels: 1, out_channels: 1, feature_size: 12, depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1]}",
    "encoder.init_args.crop": "[64, 32, 32]",
}
SWIN_UNETR = {"arguments": "{feature_size: 12, depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1]}", "in_channels": "1"}
SEGRESNET = {"arguments": "{init_filters: 8, blocks_down: [1, 1], blocks_up: [1]}", "in_channels": "1"}
DENSENET = {
    "encoder.init_args.network": "monai.networks.nets.DenseNet",
    "encoder.init_args.arguments": (
        "{spatial_dims: 2, in_channels: 1, out_channels: 1, init_features: 4, growth_rate: 4, block_config: [1, 1]}"
    ),
    "encoder.init_args.crop": "[32, 32]",
}
FLAT, DEEP = "[16, 16]", "[16, 16, 4]"
RECIPES = {
    "classifier_2d": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "classifier_3d": (DEEP, {**VIT, "encoder.init_args.patch": "[4, 4, 4]"}),
    "segmenter_2d": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "segmenter_3d": (DEEP, {**VIT, "encoder.init_args.patch": "[4, 4, 4]"}),
    "lgg_segmenter": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "lgg_folds": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "lgg_folds_long": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "lgg_folds_full": (FLAT, {**VIT, "encoder.init_args.patch": "[4, 4]"}),
    "residual_unet_2d": (FLAT, {"widths": "[4, 8]", "in_channels": "1"}),
    "residual_unet_3d": (DEEP, {"widths": "[4, 8]", "in_channels": "1"}),
    "primus_segmenter_3d": (DEEP, PRIMUS),
    "primus_classifier_3d": (DEEP, PRIMUS),
    "resenc_segmenter_2d": (FLAT, RESENC),
    "resenc_segmenter_3d": (DEEP, RESENC),
    "resenc_classifier_2d": (FLAT, RESENC),
    "resenc_classifier_3d": (DEEP, RESENC),
    "detector_2d": (FLAT, {**RESENC, "width": "4"}),
    "detector_3d": (DEEP, {**RESENC, "width": "4"}),
    "monai_encoder_segmenter_3d": ("[64, 32, 32]", SWIN),
    "monai_encoder_classifier_2d": ("[32, 32]", DENSENET),
    "dense_classifier_2d": ("[32, 32]", DENSENET),
    "swin_unetr_3d": ("[64, 32, 32]", SWIN_UNETR),
    "segresnet_2d": (FLAT, SEGRESNET),
    "segresnet_3d": (DEEP, SEGRESNET),
}

SLOW = {"swin_unetr_3d", "monai_encoder_segmenter_3d", "primus_segmenter_3d", "primus_classifier_3d"}


def test_every_recipe_is_run_here(root: Path) -> None:
    assert {path.stem for path in (root / "configs" / "finetune").glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in RECIPES])
def test_a_recipe_ends_with_a_bundle_that_scores(tmp_path: Path, store: Path, root: Path, recipe: str) -> None:
    size, changed = RECIPES[recipe]
    settings = {
        **{f"network.init_args.{name}": value for name, value in changed.items()},
        "feed.store": str(store),
        "feed.crops.size": size,
        "feed.crops.context": "1",
        "feed.batch_size": "2",
        "feed.workers": "0",
        "labels.patients": "2",
        "training.steps": "2",
        "training.checkpoint_steps": "2",
        "training.precision": "32-true",
        **({"folds.count": "2", "folds.splits": "[train, val]"} if recipe.startswith("lgg_folds") else {}),
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    launch_finetune(["--config", str(root / "configs" / "finetune" / f"{recipe}.yaml"), *options, "--out", str(tmp_path / "run")])
    assert "scan" in Bundle.read(tmp_path / "run" / "bundle").operating_points
    assert Predictor(tmp_path / "run" / "bundle").network.spatial_dims == len(size.split(","))
