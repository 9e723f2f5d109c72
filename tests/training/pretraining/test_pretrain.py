"""Configurations of pretraining: what is refused before the first step, and what a partial one means."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medssl.data.dataset import Crops, load_cases
from medssl.data.feed import Feed
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.image_text import ImageText
from medssl.objectives.mae import MILD
from medssl.objectives.pairs import STRONG
from medssl.training.launch import launch_pretrain, parser_of
from medssl.training.pretraining.health import Health, Watch
from medssl.training.pretraining.pretrain import _check_company, _check_reports, _watchers, pretrain
from medssl.training.rebuild import _without_nulls
from medssl.training.run import Run
from medssl.training.settings import Training
from medssl.views.augment import Augment

VIT = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4], "width": 8, "depth": 1, "heads": 1}}


def objective(name: str, **settings: object) -> dict[str, object]:
    return {"class_path": f"medssl.objectives.{name}", "init_args": {"encoder": VIT, **settings}}


def parsed(name: str, **settings: object) -> Any:  # noqa: ANN401
    parser = parser_of(pretrain, "pretrain")
    feed = {"store": "store", "crops": {"size": [8, 8]}}
    return parser.instantiate(parser.parse_object({"objective": objective(name, **settings), "feed": feed, "training": {}, "out": "run"}))


def views_of(name: str, **settings: object) -> Augment:
    built: Augment = parsed(name, **settings).objective.views
    return built


def start(store: Path, out: Path, *options: str, batch: int = 2, name: str = "simclr.SimCLR", **settings: object) -> None:
    crops = ["--feed.crops.size", "[8, 8]", "--feed.batch_size", str(batch), "--training.steps", "1"]
    launch_pretrain(
        ["--objective", json.dumps(objective(name, **settings)), "--feed.store", str(store), *crops, "--out", str(out), *options]
    )


@pytest.mark.parametrize(
    ("name", "own", "change"),
    [
        ("simclr.SimCLR", STRONG, {"blur": 0.5}),
        ("vicreg.VICReg", STRONG, {"noise": 0.0}),
        ("mae.MAE", MILD, {"flip": 0.0}),
        ("simmim.SimMIM", MILD, {"rotate_degrees": 5.0}),
        ("image_text.ImageText", None, {"noise": 0.0}),
    ],
)
def test_views_given_in_part_keep_what_the_method_has_for_the_rest(name: str, own: Augment | None, change: dict[str, float]) -> None:
    whole = views_of(name)
    assert own is None or whole == own
    assert views_of(name, views=change) == replace(whole, **change)
    assert views_of("image_text.ImageText", views={"noise": 0.0}).flip == 0  # sentences name sides


def test_the_resolved_configuration_names_the_views_of_the_method() -> None:
    parser = parser_of(pretrain, "pretrain")
    feed = {"store": "store", "crops": {"size": [8, 8]}}
    parsed = parser.parse_object({"objective": objective("simclr.SimCLR"), "feed": feed, "training": {}, "out": "run"})
    assert "rotate_degrees: 30" in parser.dump(parsed, skip_validation=True)


def test_one_sample_at_a_time_is_refused_where_samples_are_compared(store: Path, tmp_path: Path) -> None:
    for options, batch in (((), 1), (("--training.accumulate", "4"), 4)):
        with pytest.raises(ConfigError, match="got 1 at once; batch_size / accumulate must be at least 2"):
            start(store, tmp_path / "run", *options, batch=batch)
    assert not (tmp_path / "run").exists()


def test_one_patient_is_refused_where_patients_are_compared() -> None:
    simclr, vicreg = (parsed(name).objective for name in ("simclr.SimCLR", "vicreg.VICReg"))
    with pytest.raises(ConfigError, match="compares patients with each other, and the split has one"):
        _check_company(simclr, {"one"}, 8)
    _check_company(vicreg, {"one"}, 8)


@pytest.mark.parametrize("options", [("--feed.crops.balanced", "true"), ("--feed.crops.bag", "2")])
def test_crops_that_need_labels_or_bags_are_refused(store: Path, tmp_path: Path, options: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="looks at no label and at single crops"):
        start(store, tmp_path / "run", *options)


def test_sequences_are_hidden_as_they_are_cut_or_not_at_all(store: Path, tmp_path: Path) -> None:
    wide = {**VIT, "init_args": {**VIT["init_args"], "in_channels": 3}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="objective.context is 1 and feed.crops.context 3"):
        start(store, tmp_path / "run", "--feed.crops.context", "3", name="mae.MAE", channel_drop=0.5, encoder=wide)


def test_a_ratio_beside_another_of_the_masking_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mask_ratio is 0.6 and masking.ratio 0.75"):
        start(store, tmp_path / "run", name="mae.MAE", mask_ratio=0.6, masking={"kind": "block"})


def test_sentences_that_are_cut_are_counted(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [replace(row, report="x" * length) for row, length in zip(Store(store).manifest.rows, (3, 5, 9, 0), strict=True)]
    with caplog.at_level(logging.WARNING):
        _check_reports(ImageText(ViT((4, 4), width=8, depth=1, heads=1), text_bytes=4), rows)
    assert "2 of 4 sentences are longer than text_bytes 4" in caplog.text


def test_older_recipes_without_views_are_read_with_those_of_the_method() -> None:
    recipe = {"objective": {"init_args": {"views": None, "masking": None, "text": None}}, "bundle": None}
    assert _without_nulls(recipe) == {"objective": {"init_args": {"text": None}}, "bundle": None}


def test_small_crops_that_the_encoder_does_not_take_are_refused_by_their_name_before_the_run(tmp_path: Path, store: Path) -> None:
    widths = {"spatial_dims": 2, "stage_widths": [4, 4, 4], "stage_blocks": [1, 1, 1]}
    encoder = {"class_path": "medssl.models.residual_encoder.ResidualEncoder", "init_args": widths}
    with pytest.raises(ConfigError, match=r"local_crops.* gives small crops \[4, 4\]"):
        start(store, tmp_path / "run", name="dino.DINO", encoder=encoder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("positives", "crops"), [("same", 4), ("overlap", 8)])
def test_crops_a_second_count_both_of_a_pair(store: Path, tmp_path: Path, positives: str, crops: int) -> None:
    feed, cases = Feed(store, Crops((8, 8)), batch_size=4), load_cases(Store(store), Store(store).manifest.rows)
    simclr, watch = parsed("simclr.SimCLR", positives=positives).objective, Watch(crops=4, labelled=0)
    _, health = _watchers(simclr, cases, feed, Training(), store=Store(store), run=Run(tmp_path, ""), seed=0, watch=watch)
    assert isinstance(health, Health)
    assert health.crops_a_step == crops
