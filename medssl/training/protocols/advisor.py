"""Which protocol suits the labels at hand: a question of how many patients have them, and of how much frozen features tell.

The rule follows what is published. With 10 and 20 % of the labels a linear layer on features of a contrastive encoder tells more than the
same encoder fine-tuned (malignancy of LUNA16 nodules: area 0.83 against 0.52, 0.88 against 0.79), with half of them both are alike, with
all of them fine-tuning wins (0.88 against 0.94): Pai et al., "Foundation model for cancer imaging biomarkers", 2024,
https://doi.org/10.1038/s42256-024-00807-9; of restorative encoders neither is always ahead there. Tuning a part of the depth beats tuning
all of it on small data (Khan et al., 2023). Features that tell little when frozen can still be the best start (masked autoencoders, He et
al., 2021, probe worst and fine-tune best). Where the borders lie in patients is our own choice.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.dataset import Case, Crops
from medssl.evaluation.classification import delong
from medssl.evaluation.intervals import index_patients, patient_weights
from medssl.evaluation.representation import probe_scores
from medssl.files import write_text
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.training.protocols.features import Task, told, told_task
from medssl.training.protocols.tuning import Name
from medssl.training.ranks import leads
from medssl.training.run import Run

Floats = NDArray[np.float64]

FEW, MANY = 20, 100  # labelled patients: below the first features stay frozen, from the second on everything learns
GOOD = 0.8  # area under the curve of a probe that may stand alone
_SAMPLES = 1024  # crops, or cells of crops, that the probe is asked
_DRAWS = 1000


@dataclass(frozen=True)
class Probe:
    """What frozen features tell of lesions, by patient: each patient is answered by a fit on others.

    Args:
        auroc: Of the pretrained encoder, 0 to 1.
        auroc_ci95: Its interval when patients are drawn anew.
        random_auroc: Of the same encoder with random weights, on the same crops.
        gain: The first less the second.
        gain_ci95: Its interval, paired by patient.
        samples: Crops, or cells of crops for segmentation.
        patients: They are from; all of training.
    """

    auroc: float
    auroc_ci95: tuple[float, float]
    random_auroc: float
    gain: float
    gain_ci95: tuple[float, float]
    samples: int
    patients: int

    def __str__(self) -> str:
        return (
            f"probe AUROC {self.auroc:.2f} ({_to(self.auroc_ci95)}), with random weights {self.random_auroc:.2f}, "
            f"gain {self.gain:+.2f} ({_to(self.gain_ci95)})"
        )


@dataclass(frozen=True)
class Advice:
    """A protocol and why.

    Args:
        protocol: That is proposed.
        reason: One sentence.
        patients: With labels, in training.
        probe: What frozen features tell; None where they were not asked or could not answer.
    """

    protocol: Name
    reason: str
    patients: int
    probe: Probe | None = None

    @classmethod
    def read(cls, path: Path) -> "Advice":
        """The advice that a run was given before it was stopped."""
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        probe = fields.pop("probe")
        return cls(**fields, probe=None if probe is None else Probe(**{name: _tuple(value) for name, value in probe.items()}))


def advise(network: Network, cases: Sequence[Case], crops: Crops, *, pretrained: bool, seed: int) -> Advice:
    """Propose a protocol.

    Args:
        network: As configured, with the weights that it starts from.
        cases: Labelled scans of training; nothing else is looked at.
        crops: Size of crops.
        pretrained: Whether the weights come from a bundle.
        seed: Of the crops and of the random weights.
    """
    patients, encoder = len({case.row.patient for case in cases}), getattr(network, "encoder", None)
    if not pretrained or not isinstance(encoder, Encoder):
        return Advice("full", "No bundle is given: random weights have to be learned as a whole.", patients)
    return proposal(told_task(network), patients, probed(network, encoder, cases, crops, seed=seed), bags=network.bags)


def proposal(task: Task, patients: int, probe: Probe | None, *, bags: bool = False) -> Advice:
    """The rule: what is frozen grows with what the probe tells and shrinks with the number of labelled patients."""
    if probe is None:
        name: Name = "llrd" if patients < MANY else "full"
        why = f"a probe needs two patients and both answers; {_way(name)}"
    elif patients >= MANY:
        name, why = "full", f"{probe}; with {MANY} patients or more fine-tuning as a whole tells more than frozen features"
    elif probe.gain_ci95[0] <= 0:
        name, why = "full", f"{probe}: the features do not show that they tell more than random weights; compare with scratch"
    elif patients < FEW and probe.auroc >= GOOD:
        name = "linear" if task == "classification" and not bags else "light"
        why = f"{probe}: with fewer than {FEW} patients such features tell more when they stay frozen"
    else:
        name, why = "llrd", f"{probe}: the features help; {_way('llrd')}"
    return Advice(name, f"{patients} labelled patients, {why}.", patients, probe)


def _way(name: Name) -> str:
    return "the layers next to the head learn most, the first ones keep what they know" if name == "llrd" else "there are labels for all"


def probed(network: Network, encoder: Encoder, cases: Sequence[Case], crops: Crops, *, seed: int) -> Probe | None:
    """The probe on an encoder's features and on those of random weights; None without two patients and both answers.

    Args:
        network: Its task and output channels say what is asked: whether any positive class is there.
        encoder: Of the network.
        cases: Labelled scans of training.
        crops: Size of crops.
        seed: Of the crops and of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = cast(Encoder, encoder.architecture().build())
    asked = {"task": network.task, "count": _SAMPLES, "seed": seed, "classes": network.classes}
    known, unknown = (told(one, cases, crops, **asked) for one in (encoder, untrained))  # type: ignore[arg-type]
    labels, patients = (network.outputs.suspicion(known.answers.T) >= 0.5).numpy().astype(np.intp), known.patients
    if len(set(patients)) < 2 or len(set(labels)) < 2:
        return None
    scores, random_scores = (probe_scores(part.features.numpy(), labels, patients) for part in (known, unknown))
    area, random_area = (delong(labels, part)[0] for part in (scores, random_scores))
    drawn, random_drawn = (_areas(labels, part, patients) for part in (scores, random_scores))
    return Probe(
        auroc=area,
        auroc_ci95=_interval(drawn),
        random_auroc=random_area,
        gain=area - random_area,
        gain_ci95=_interval(drawn - random_drawn),
        samples=len(labels),
        patients=len(set(patients)),
    )


def _areas(labels: NDArray[np.intp], scores: Floats, patients: NDArray[np.str_]) -> Floats:
    """(draws,) area under the curve when whole patients are drawn; the same draws for all scores, NaN where one answer is missing."""
    index, count = index_patients(patients)
    positive = labels == 1
    wins = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    table = np.zeros((count, count))  # wins of a patient's positives over another's negatives
    np.add.at(table, (index[positive][:, None], index[~positive][None]), wins)
    positives, negatives = (np.bincount(index[part], minlength=count) for part in (positive, ~positive))
    blocks = patient_weights(count, draws=_DRAWS)
    areas = [
        np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        for weights in blocks
        for won, pairs in [(np.einsum("dp,pq,dq->d", weights, table, weights), (weights @ positives) * (weights @ negatives))]
    ]
    return np.concatenate(areas)


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)


def _to(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _tuple(value: object) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value


def advised(network: Network, cases: Sequence[Case], crops: Crops, *, pretrained: bool, seed: int, run: Run) -> Advice:
    """The advice of a run, kept in its folder: one that goes on, and processes that help, take what it was given at first.

    Args:
        network: See `advise`.
        cases: See `advise`.
        crops: See `advise`.
        pretrained: See `advise`.
        seed: See `advise`.
        run: Its folder keeps `advice.json`.
    """
    path = run.folder / "advice.json"
    if path.is_file() and (run.resume or not leads()):
        return Advice.read(path)
    advice = advise(network, cases, crops, pretrained=pretrained, seed=seed)
    taken = (run.folder / "config.yaml").is_file()  # by another run, which is told when this one is opened
    if leads() and not run.plan_only and not taken:
        write_text(path, json.dumps(asdict(advice), indent=1))  # whole at once, as others may be reading
    return advice
