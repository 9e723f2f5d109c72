from pathlib import Path

import lightning as L
import torch

from medssl.data.unlabelled import Unlabelled
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training.pretraining.pictures import Pictures
from medssl.training.pretraining.pretrainer import Pretrainer
from medssl.training.settings import Training


def crops(count: int = 2) -> Unlabelled:
    known = torch.ones(count, 1, 1)
    return Unlabelled(
        image=torch.randn(count, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        number=torch.arange(count),
        patient=torch.arange(count),
        corner=torch.zeros(count, 1, 2),
        level=-9 * known,
        present=known.bool(),
        text=torch.zeros(count, 4, dtype=torch.uint8),
    )


def pretrainer() -> Pretrainer:
    torch.manual_seed(0)
    encoder = ViT((4, 4), width=16, depth=2, heads=2, drop_path=0.9)
    return Pretrainer(MAE(encoder, decoder_width=16, decoder_depth=1), Training(), seed=0)


def idle_trainer() -> L.Trainer:
    return L.Trainer(max_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")


def drawn(module: Pretrainer, folder: Path) -> bytes:
    """The picture of step 0."""
    Pictures(crops(), folder, seed=0, every=1).on_train_batch_end(idle_trainer(), module, None, None, 0)
    return (folder / "step000000.png").read_bytes()


def test_a_picture_of_the_same_weights_is_the_same_whatever_paths_training_drops(tmp_path: Path) -> None:
    module = pretrainer().train()
    torch.manual_seed(1)
    first = drawn(module, tmp_path)
    torch.manual_seed(2)
    assert drawn(module, tmp_path) == first


def test_a_picture_leaves_the_mode_of_training(tmp_path: Path) -> None:
    module = pretrainer().train()
    drawn(module, tmp_path)
    assert all(part.training for part in module.modules())


def test_the_numbers_of_samples_stay_on_the_processor_when_a_batch_goes_to_a_device() -> None:
    there = pretrainer().transfer_batch_to_device(crops(), torch.device("meta"), 0)
    assert {name for name, value in there.items() if value.device.type == "cpu"} == {"number"}


def test_the_bar_of_pretraining_names_the_method() -> None:
    assert pretrainer().title == "MAE"
