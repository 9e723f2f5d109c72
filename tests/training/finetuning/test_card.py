"""What a model card says."""

from dataclasses import replace

import pytest

from medssl.data.preprocess import Preprocess
from medssl.models.architecture import Architecture
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.training.finetuning.card import card


@pytest.fixture
def bundle() -> Bundle:
    point = {"threshold": 0.25, "rule": "youden midway", "chosen_on": "validation", "n": 50, "n_positive": 20}
    return Bundle(
        kind="segmentation",
        architecture=Architecture("medssl.models.residual_unet.ResidualUNet", {}),
        preprocess=Preprocess(),
        window=Window((16, 16)),
        operating_points={"scan": {**point, "sensitivity": 0.9, "specificity": 0.8}},
        training={"scans": 30, "patients": 25, "steps": 100, "seed": 3, "selection": {}},
    )


def test_rates_at_a_threshold_have_their_counts_and_intervals(bundle: Bundle) -> None:
    assert "| validation, 50 scans | 0.900 (18 of 20) [0.699, 0.972] | 0.800 (24 of 30) [0.627, 0.905] |" in card(bundle)


def test_the_looks_of_a_selection_are_listed(bundle: Bundle) -> None:
    looks = [{"step": 50, "value": 0.5}, {"step": 100, "value": 0.75}]
    selection = {"metric": "dice", "step": 100, "value": 0.75, "scans": 9, "average": None, "looks": looks}
    text = card(replace(bundle, training={**bundle.training, "selection": selection}))
    assert "best dice of 9 validation scans: 0.7500 after 100 steps" in text
    assert "dice by step: 50: 0.5000, 100: 0.7500" in text


def test_protocol_and_loss_are_said_where_the_run_recorded_them(bundle: Bundle) -> None:
    facts = {"protocol": {"name": "lora", "rank": 4}, "config": {"loss": {"class_path": "Focal", "init_args": {"gamma": 2.0}}}}
    text = card(replace(bundle, training={**bundle.training, **facts}))
    assert "- protocol lora (rank 4)" in text
    assert "- loss: class_path Focal, init_args gamma 2.0" in text


def test_a_threshold_without_the_other_class_says_that_a_rate_is_not_known(bundle: Bundle) -> None:
    rule = "95% quantile of negatives: no positive to choose on"
    point = {**bundle.operating_points["scan"], "rule": rule, "n_positive": 0, "sensitivity": None}
    text = card(replace(bundle, operating_points={"scan": point}))
    assert f"| {rule} | validation, 50 scans | not known |" in text
    assert "rests on 0 units with lesion and 50 without" in text


def test_a_temperature_is_said_with_what_it_was_fitted_on(bundle: Bundle) -> None:
    fitted = {"unit": "scan", "temperature": 2.0, "note": "", "n": 50, "n_positive": 20, "loss_before": 0.7, "loss_after": 0.6}
    assert "- scan: temperature 2 from 50 scans, 20 of them positive; cross entropy 0.7 before, 0.6 after" in card(
        replace(bundle, calibration={"scan": fitted})
    )


def test_every_fold_says_what_it_learned_from_and_by_which_protocol(bundle: Bundle) -> None:
    members = [{"scans": 3, "patients": 1, "protocol": {"name": name}, "advice": {"reason": f"so {name}."}} for name in ("light", "full")]
    text = card(replace(bundle, training={**bundle.training, "folds": {"count": 2, "by": "patient"}, "members": members}))
    for number, name in enumerate(("light", "full")):
        assert f"- fold {number}: trained on 3 scans of 1 patients\n- fold {number}: protocol {name}\n" in text
        assert f"- fold {number}: this protocol was proposed: so {name}." in text


def test_parts_of_masks_that_do_not_count_are_told_with_what_they_cost(bundle: Bundle) -> None:
    point = {
        "threshold": 0.5,
        "rule": "highest mean Dice",
        "chosen_on": "validation",
        "n": 8,
        "dice": 0.8,
        "min_voxels": 5,
        "min_share": 0.5,
    }
    told = {"voxel": {**point, "lesions_touched": 9, "lesions_touched_by_any_part": 10}}
    text = card(replace(bundle, operating_points=told))
    assert "below 5 voxels of the network's grid, or below 50% of the largest part of the scan, are left out" in text
    assert "9 lesions are touched so, and 10 with every part" in text
    whole = {"voxel": {**point, "min_voxels": 1, "min_share": 0.0}}
    assert "are left out" not in card(replace(bundle, operating_points=whole))


def test_a_temperature_of_classes_is_said_to_be_one(bundle: Bundle) -> None:
    fitted = {
        "unit": "scan",
        "of": "classes",
        "temperature": 2.0,
        "note": "",
        "n": 50,
        "n_positive": 20,
        "loss_before": 0.7,
        "loss_after": 0.6,
    }
    assert "20 of them positive; cross entropy of classes 0.7 before, 0.6 after" in card(replace(bundle, calibration={"scan": fitted}))
