"""Recipes of strangers: what a parser would import, read or build is told before it sees them."""

import json
from pathlib import Path

import pytest
from jsonargparse import Namespace

from medssl.assets import asset
from medssl.models.ensemble import Ensemble
from medssl.training.finetuning.finetune import finetune
from medssl.training.foreign_code import foreign_parts
from medssl.training.launch import parser_of
from medssl.training.pretraining.pretrain import pretrain
from medssl.training.run import Run

VIT = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4]}}
MONAI = "medssl.models.monai_encoder.MonaiEncoder"


def objective(encoder: object, **more: object) -> dict[str, object]:
    return {"objective": {"class_path": "medssl.objectives.mae.MAE", "init_args": {"encoder": encoder}, **more}}


def contrast(arguments: object) -> dict[str, object]:
    """A recipe with a network of MONAI, whose arguments may be of any kind."""
    encoder = {"class_path": MONAI, "init_args": {"network": "monai.networks.nets.SwinUNETR", "arguments": arguments}}
    return {"objective": {"class_path": "medssl.objectives.simclr.SimCLR", "init_args": {"encoder": encoder}}}


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"objective": "this.Zen"}, "this.Zen"),
        ({"objective": ["this.Zen"]}, "this.Zen"),
        ({"objective": "other.yaml"}, "other.yaml"),
        ({"objective": '{"class_path": "this.Zen"}'}, '{"class_path": "this.Zen"}'),
        ({"objective.class_path": "this.Zen"}, "objective.class_path"),
        ({"config": "other.yaml"}, "config"),
        ({"feed": "feed.yaml"}, "feed.yaml"),
        ({"feed": {"crops": "crops.yaml"}}, "crops.yaml"),
        (objective("antigravity.Foo"), "antigravity.Foo"),
        (objective({"class_path": "antigravity.Foo"}), "antigravity.Foo"),
        (objective({"init_args": {}}), "init_args"),
        (objective(VIT, dict_kwargs={"path": "this.Zen"}), "dict_kwargs"),
        (objective({**VIT, "__path__": "other.yaml"}), "__path__"),
        (objective({"class_path": "medssl.training.ranks.subprocess.Popen"}), "medssl.training.ranks.subprocess.Popen"),
        (objective({"class_path": "medssl.training.run.L.Trainer"}), "medssl.training.run.L.Trainer"),
        (objective({"class_path": "medssl.training.settings.AdamW"}), "medssl.training.settings.AdamW"),
        (objective({"class_path": "medssl.__main__.Foo"}), "medssl.__main__.Foo"),
        (contrast({"norm": {"class_path": "this.Zen"}}), "this.Zen"),
        (contrast({"norm": [{"class_path": "medssl.models.vit.ViT"}]}), "medssl.models.vit.ViT"),
        (contrast({"norm": "{class_path: this.Zen}"}), "{class_path: this.Zen}"),
        (contrast("{norm: {class_path: this.Zen}}"), "{norm: {class_path: this.Zen}}"),
    ],
)
def test_what_a_recipe_of_medssl_never_holds_is_told(recipe: dict[str, object], told: str) -> None:
    assert list(foreign_parts(recipe, pretrain)) == [told]


def test_a_class_in_a_list_of_classes_is_one_of_medssl() -> None:
    def score(members: list[Ensemble]) -> None: ...

    assert list(foreign_parts({"members": ["this.Zen", {"class_path": "this.Zen"}]}, score)) == ["this.Zen", "this.Zen"]


def test_words_and_numbers_of_a_foreign_network_are_plain_values() -> None:
    assert list(foreign_parts(contrast({"norm": "batch", "act": ["relu", {"slope": 0.1}], "model": "efficientnet-b0"}), pretrain)) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_the_recipes_of_medssl_hold_nothing_foreign(command: str) -> None:
    function = {"pretrain": pretrain, "finetune": finetune}[command]
    parser = parser_of(function, command)
    for path in sorted(asset(f"configs/{command}").rglob("*.yaml")):
        settings = parser.parse_args(["--config", str(path), "--feed.store", "store", "--out", "run"])
        kept = {name: value for name, value in vars(settings).items() if name not in ("plan", "cluster", "from_bundle")}
        recipe = Run(Path("run"), parser.dump(Namespace(**kept), skip_validation=True)).recipe
        assert list(foreign_parts(json.loads(json.dumps(recipe)), function)) == []
