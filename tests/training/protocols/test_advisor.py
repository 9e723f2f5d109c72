from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medssl.data.dataset import Crops, load_cases
from medssl.data.store import Store
from medssl.models.decoder import ViTSegmenter
from medssl.models.heads import Classifier
from medssl.models.residual_unet import ResidualUNet
from medssl.models.vit import ViT
from medssl.training.protocols.advisor import FEW, MANY, Advice, Probe, _areas, advise, advised, probed, proposal
from medssl.training.run import Run

GOOD = Probe(0.9, (0.85, 0.95), 0.6, 0.3, (0.2, 0.4), samples=100, patients=10)
WEAK = Probe(0.7, (0.6, 0.8), 0.6, 0.1, (0.02, 0.2), samples=100, patients=10)
USELESS = Probe(0.6, (0.5, 0.7), 0.6, 0.0, (-0.1, 0.1), samples=100, patients=10)


@pytest.mark.parametrize(
    ("task", "patients", "probe", "protocol"),
    [
        ("classification", FEW - 1, GOOD, "linear"),
        ("segmentation", FEW - 1, GOOD, "light"),
        ("segmentation", FEW, GOOD, "llrd"),
        ("classification", FEW - 1, WEAK, "llrd"),
        ("classification", FEW - 1, USELESS, "full"),
        ("segmentation", MANY, GOOD, "full"),
        ("segmentation", 1, None, "llrd"),
    ],
)
def test_what_is_frozen_follows_the_labels_and_the_probe(task: str, patients: int, probe: Probe | None, protocol: str) -> None:
    advice = proposal(task, patients, probe)  # type: ignore[arg-type]
    assert advice.protocol == protocol
    assert str(patients) in advice.reason
    assert probe is None or f"{probe.auroc:.2f}" in advice.reason


def test_without_a_bundle_or_an_encoder_everything_learns(store: Path) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    network = Classifier(ViT((4, 4), width=16, depth=1, heads=2))
    assert advise(network, cases, Crops((16, 16)), pretrained=False, seed=0).protocol == "full"
    assert advise(ResidualUNet(widths=(4, 8)), cases, Crops((16, 16)), pretrained=True, seed=0).protocol == "full"


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_probe_answers_for_training_patients_and_has_an_interval(store: Path, task: str) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    encoder = ViT((4, 4), width=16, depth=1, heads=2)
    network = Classifier(encoder) if task == "classification" else ViTSegmenter(encoder)
    probe = probed(network, encoder, cases, Crops((16, 16)), seed=0)
    assert probe is not None
    assert probe.patients == 2
    assert probe.auroc_ci95[0] - 1e-9 <= probe.auroc <= probe.auroc_ci95[1] + 1e-9
    assert probe.gain == pytest.approx(probe.auroc - probe.random_auroc)


def test_one_patient_answers_no_probe(store: Path) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))[:1]
    network = ViTSegmenter(ViT((4, 4), width=16, depth=1, heads=2))
    assert probed(network, network.encoder, cases, Crops((16, 16)), seed=0) is None


def test_areas_of_drawn_patients_are_those_of_their_samples_repeated() -> None:
    from medssl.evaluation.intervals import patient_weights

    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 40), generator.integers(0, 9, 40) / 8
    patients = np.array([f"p{number % 5}" for number in range(40)])
    areas = _areas(labels, scores, patients)
    draws = np.concatenate(list(patient_weights(5, draws=1000)))
    for draw in (0, 7, 500):
        repeats = draws[draw][np.arange(40) % 5].astype(int)
        assert areas[draw] == pytest.approx(roc_auc_score(labels.repeat(repeats), scores.repeat(repeats)))


def test_a_run_that_goes_on_takes_the_advice_that_it_was_given(tmp_path: Path, store: Path) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    network = ViTSegmenter(ViT((4, 4), width=16, depth=1, heads=2))
    settings = {"pretrained": True, "seed": 0}
    given = advised(network, cases, Crops((16, 16)), run=Run(tmp_path / "run", ""), **settings)  # type: ignore[arg-type]
    later = advised(network, [], Crops((16, 16)), run=Run(tmp_path / "run", "", resume=True), **settings)  # type: ignore[arg-type]
    assert later == given == Advice.read(tmp_path / "run" / "advice.json")


def test_a_plan_leaves_no_advice_behind(tmp_path: Path, store: Path) -> None:
    cases = load_cases(Store(store), Store(store).manifest.split("train"))
    network = Classifier(ViT((4, 4), width=16, depth=1, heads=2))
    advised(network, cases, Crops((16, 16)), pretrained=True, seed=0, run=Run(tmp_path / "run", "", plan_only=True))
    assert not (tmp_path / "run").exists()
