from pathlib import Path

import pytest
import torch
import yaml

from medssl.models.vit import ViT
from medssl.training.finetuning.finetune import finetune
from medssl.training.launch import parser_of
from medssl.training.pretraining.pretrain import pretrain

FEED = {"store": "x", "crops": {"size": [16, 16]}}


@pytest.mark.parametrize(
    ("class_path", "init_args", "width"),
    [
        ("medssl.models.vit_sizes.sized_vit", {"size": "tiny", "patch": [16, 16], "positions": "rotary"}, 192),
        ("medssl.models.vit_sizes.primus", {"size": "S", "patch": [8, 8, 8]}, 396),
    ],
)
def test_a_size_is_named_in_a_configuration(tmp_path: Path, class_path: str, init_args: dict[str, object], width: int) -> None:
    encoder = {"class_path": class_path, "init_args": init_args}
    settings = {"objective": {"class_path": "medssl.objectives.mae.MAE", "init_args": {"encoder": encoder}}, "feed": FEED}
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump({**settings, "training": {}}))
    parser = parser_of(pretrain, "pretrain")
    built = parser.instantiate(parser.parse_args(["--config", str(path), "--out", "x"])).objective.encoder
    assert type(built) is ViT
    assert built.architecture().init_args["width"] == width


@pytest.mark.parametrize(
    ("class_path", "init_args"),
    [
        ("medssl.models.residual_encoder.ResidualEncoder", {"spatial_dims": 2, "stage_widths": [4, 8], "stage_blocks": [1, 1]}),
        (
            "medssl.models.monai_encoder.MonaiEncoder",
            {
                "network": "monai.networks.nets.SegResNet",
                "arguments": {"spatial_dims": 2, "init_filters": 8},
                "crop": [16, 16],
                "features": "encode",
            },
        ),
    ],
)
@pytest.mark.parametrize("network", ["heads.Classifier", "heads.ViTClassifier", "unet.PyramidUNet"])
def test_a_network_is_configured_on_any_encoder(tmp_path: Path, network: str, class_path: str, init_args: dict[str, object]) -> None:
    encoder = {"class_path": class_path, "init_args": init_args}
    settings = {"network": {"class_path": f"medssl.models.{network}", "init_args": {"encoder": encoder}}, "feed": FEED}
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump({**settings, "training": {}}))
    parser = parser_of(finetune, "finetune")
    built = parser.instantiate(parser.parse_args(["--config", str(path), "--out", "x"])).network
    rebuilt = built.architecture().build()
    rebuilt.load_state_dict(built.state_dict())
    assert rebuilt.architecture() == built.architecture()


def test_weights_of_others_are_named_in_a_configuration(tmp_path: Path) -> None:
    theirs = ViT((4, 4), width=16, depth=1, heads=2).state_dict()
    names = {
        "norm_attention": "norm1",
        "norm_mlp": "norm2",
        "qkv": "attn.qkv",
        "project": "attn.proj",
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }
    state = {"pos_embed": torch.zeros(1, 17, 16), "cls_token": torch.zeros(1, 1, 16)}
    for name, tensor in theirs.items():
        for ours, other in names.items():
            name = name.replace(f".{ours}.", f".{other}.")
        state[name.replace("embed.", "patch_embed.proj.")] = tensor.view(16, 1, 4, 4) if name == "embed.weight" else tensor
    torch.save({"model": state}, tmp_path / "mae.pth")
    sizes = {"patch": [4, 4], "width": 16, "depth": 1, "heads": 2, "positions": "learned", "position_grid": [4, 4], "registers": 1}
    weights = {"encoder": {"class_path": "medssl.models.vit.ViT", "init_args": sizes}, "path": str(tmp_path / "mae.pth"), "kind": "mae"}
    encoder = {"class_path": "medssl.models.foreign.pretrained_vit", "init_args": weights}
    path = tmp_path / "pretrain.yaml"
    objective = {"class_path": "medssl.objectives.mae.MAE", "init_args": {"encoder": encoder}}
    path.write_text(yaml.safe_dump({"objective": objective, "feed": FEED, "training": {}}))
    parser = parser_of(pretrain, "pretrain")
    built = parser.instantiate(parser.parse_args(["--config", str(path), "--out", "x"])).objective.encoder
    assert built.state_dict()["blocks.0.qkv.weight"].equal(theirs["blocks.0.qkv.weight"])
    assert built.architecture().class_path == "medssl.models.vit.ViT"
