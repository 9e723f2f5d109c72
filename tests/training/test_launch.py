from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from medssl.data.dataset import Case
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.seen import counts
from medssl.errors import ConfigError, ConflictError, ManifestError, UsageError
from medssl.models.bundle import Bundle
from medssl.training.finetuning.finetune import Labels
from medssl.training.launch import launch_finetune, launch_pretrain

ENCODER = {"class_path": "medssl.models.vit.ViT", "init_args": {"patch": [4, 4], "width": 16, "depth": 1, "heads": 2}}
FEED = {"crops": {"size": [16, 16]}, "batch_size": 4}
TRAINING = {"steps": 4, "checkpoint_steps": 2, "precision": "32-true"}


def pretrain_config(tmp_path: Path, store: Path, method: str = "mae.MAE", **training: object) -> list[str]:
    settings = {
        "objective": {"class_path": f"medssl.objectives.{method}", "init_args": {"encoder": ENCODER}},
        "feed": {**FEED, "store": str(store)},
        "training": {**TRAINING, **training},
        "seed": 3,
    }
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


def finetune_config(tmp_path: Path, store: Path, network: str, bundle: Path | None) -> list[str]:
    settings = {
        "network": {"class_path": f"medssl.models.{network}", "init_args": {"encoder": ENCODER}},
        "feed": {**FEED, "store": str(store)},
        "training": TRAINING,
        "bundle": None if bundle is None else str(bundle),
    }
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


@pytest.mark.parametrize("method", ["mae.MAE", "simclr.SimCLR"])
def test_pretraining_ends_with_a_bundle_logs_and_a_checkpoint(tmp_path: Path, store: Path, method: str) -> None:
    launch_pretrain([*pretrain_config(tmp_path, store, method), "--out", str(tmp_path / "run")])
    assert Bundle.read(tmp_path / "run" / "bundle").kind == "encoder"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "run" / "logs" / "metrics.csv").is_file()
    assert list((tmp_path / "run" / "logs").glob("events.out.tfevents*"))
    assert (method != "mae.MAE") or len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_config_gives_the_same_weights(tmp_path: Path, store: Path, precision: str) -> None:
    config = pretrain_config(tmp_path, store, precision=precision)
    first, again = (launch_pretrain([*config, "--out", str(tmp_path / name)]) for name in "ab")
    assert first.weights_id == again.weights_id


@pytest.mark.parametrize("method", ["mae.MAE", "moco.MoCo", "dino.DINO"])  # without and with a teacher, and with more state
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = launch_pretrain([*pretrain_config(tmp_path, store, method), "--out", str(tmp_path / "whole")])
    out = ["--out", str(tmp_path / "cut")]

    def stop(module: object, batch: object, batch_idx: int) -> torch.Tensor:
        if module.global_step == 2:  # type: ignore[attr-defined]
            raise InterruptedError
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    from medssl.training.pretraining.pretrainer import Pretrainer

    step = Pretrainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "training_step", stop)
        with pytest.raises(InterruptedError):
            launch_pretrain([*pretrain_config(tmp_path, store, method), *out])
    resumed = launch_pretrain([*pretrain_config(tmp_path, store, method), *out, "--resume", "true"])
    assert resumed.weights_id == whole.weights_id


@pytest.mark.parametrize(("network", "precision"), [("decoder.ViTSegmenter", "bf16-mixed"), ("heads.ViTClassifier", "32-true")])
def test_fine_tuning_locks_thresholds_and_keeps_the_lineage(tmp_path: Path, store: Path, network: str, precision: str) -> None:
    encoder = launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")])
    config = finetune_config(tmp_path, store, network, tmp_path / "run" / "bundle")
    bundle = launch_finetune([*config, "--training.precision", precision, "--out", str(tmp_path / "fine")])
    assert bundle.lineage == (encoder.model_id,)
    assert {"scan", "slice"} <= set(bundle.operating_points)
    assert bundle.operating_points["slice"]["chosen_on"] == "validation"


def test_from_scratch_is_one_switch(tmp_path: Path, store: Path) -> None:
    bundle = launch_finetune([*finetune_config(tmp_path, store, "decoder.ViTSegmenter", None), "--out", str(tmp_path / "fine")])
    assert bundle.lineage == ()


def test_few_labelled_patients_are_drawn_by_seed(tmp_path: Path, store: Path) -> None:
    config = [*finetune_config(tmp_path, store, "decoder.ViTSegmenter", None), "--labels.patients", "1"]
    patients = {launch_finetune([*config, "--seed", str(seed), "--out", str(tmp_path / f"{seed}")]).training["patients"] for seed in (0, 1)}
    assert patients == {1}


def test_more_labelled_patients_than_there_are_is_refused(tmp_path: Path, store: Path) -> None:
    config = [*finetune_config(tmp_path, store, "decoder.ViTSegmenter", None), "--labels.patients", "3"]
    with pytest.raises(ManifestError, match="asks for 3, the split has 2"):
        launch_finetune([*config, "--out", str(tmp_path / "fine")])


def test_a_larger_draw_of_patients_holds_the_smaller_one() -> None:
    rows = [ManifestRow(scan_id=f"s{number}", patient=f"p{number}", image="x") for number in range(9)]
    cases = [Case(row, None, (1, 2, 2, 2), -1, False, np.array([])) for row in rows]  # type: ignore[arg-type]
    small, large = ({case.row.patient for case in Labels(patients=count).drawn(cases, seed=5)} for count in (3, 6))
    assert len(small) == 3
    assert small < large


def test_a_draw_of_patients_counts_spellings_of_one_once(tmp_path: Path) -> None:
    spelled = ("P1", "p1", "P 1", "P2", "p2", "P3")
    (tmp_path / "t.csv").write_text("image,patient\n" + "".join(f"{number}.png,{patient}\n" for number, patient in enumerate(spelled)))
    rows = Manifest.read(tmp_path / "t.csv").rows
    cases = [Case(row, None, (1, 2, 2, 2), -1, False, np.array([])) for row in rows]  # type: ignore[arg-type]
    assert {case.row.patient for case in Labels(patients=3).drawn(cases, seed=5)} == {"P1", "P2", "P3"}


def test_pretrained_weights_are_those_of_the_bundle(tmp_path: Path, store: Path) -> None:
    from medssl.data.store import Store
    from medssl.models.decoder import ViTSegmenter
    from medssl.models.vit import ViT
    from medssl.training.start import start_from

    launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")])
    network = ViTSegmenter(ViT([4, 4], width=16, depth=1, heads=2))
    start_from(network, tmp_path / "run" / "bundle", Store(store))
    weights = load_file(tmp_path / "run" / "bundle" / "weights.safetensors")
    assert all(weights[name].equal(tensor) for name, tensor in network.encoder.state_dict().items())


def test_a_bundle_knows_what_it_and_its_encoder_have_learned_from(tmp_path: Path, store: Path) -> None:
    encoder = launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")])
    config = finetune_config(tmp_path, store, "decoder.ViTSegmenter", tmp_path / "run" / "bundle")
    bundle = launch_finetune([*config, "--out", str(tmp_path / "fine")])
    assert counts(encoder.seen) == {"pretraining": 2}
    assert counts(bundle.seen) == {"pretraining": 2, "training": 2, "validation": 2}
    assert Bundle.read(tmp_path / "fine" / "bundle").seen == bundle.seen


def test_pretraining_draws_the_same_crops_whatever_the_masks_say(store: Path) -> None:
    from medssl.data.dataset import CropDataset, Crops, load_cases
    from medssl.data.store import Store

    rows = [row for row in Store(store).manifest.rows if row.has_lesion == "1"]
    cases = load_cases(Store(store), rows, masks=False)
    batch = CropDataset(cases, Crops((8, 8), lesion_fraction=1.0), seed=0).__getitems__(range(8))
    assert not batch["lesion"].any()
    assert set(batch["label"].tolist()) == {1}  # what the table says of the scan, not what a mask says of the slice


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path, store: Path) -> None:
    launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")])
    config = finetune_config(tmp_path, store, "decoder.ViTSegmenter", tmp_path / "run" / "bundle")
    with pytest.raises(ConfigError, match="encoder differs"):
        launch_finetune([*config, "--network.init_args.encoder.init_args.depth", "2", "--out", str(tmp_path / "fine")])


def test_an_unknown_key_is_refused_by_name(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="temprature"):
        launch_pretrain([*pretrain_config(tmp_path, store, temprature=1), "--out", str(tmp_path / "run")])


def test_a_value_out_of_range_is_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="steps"):
        launch_pretrain([*pretrain_config(tmp_path, store, steps=0), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (["--folds.count", "1"], "folds: count must be >= 2"),
        (["--loss", "medssl.training.losses.Focal", "--loss.gamma", "-1"], "gamma must be >= 0"),
        (["--folds.seed", "-1"], "seed must be a whole number"),
        (["--seed", "-1"], "seed must be a whole number"),
        (["--seed", "4294967296"], "seed must be a whole number"),
    ],
)
def test_what_a_constructor_refuses_is_said_in_its_own_words(tmp_path: Path, store: Path, setting: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}"):
        launch_finetune([*finetune_config(tmp_path, store, "decoder.ViTSegmenter", None), *setting, "--out", str(tmp_path / "run")])


def test_a_configuration_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ConfigError, match="is no text; give a YAML file"):
        launch_pretrain(["--config", str(tmp_path / "scan.nii.gz"), "--out", str(tmp_path / "run")])


def test_a_run_folder_is_never_overwritten(tmp_path: Path, store: Path) -> None:
    arguments = [*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run")]
    launch_pretrain(arguments)
    with pytest.raises(ConflictError, match="holds a run already"):
        launch_pretrain(arguments)


def test_nothing_to_resume_is_said(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        launch_pretrain([*pretrain_config(tmp_path, store), "--out", str(tmp_path / "run"), "--resume", "true"])


def test_a_crop_of_another_dimension_is_refused(tmp_path: Path, store: Path) -> None:
    arguments = [*pretrain_config(tmp_path, store), "--feed.crops.size", "[8, 8, 4]", "--out", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match="2D"):
        launch_pretrain(arguments)
