"""Frozen features of labelled scans with their answers: what neighbours remember, and what the advisor asks."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medssl.data.dataset import Case, CropDataset, Crops, Sample
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.models.inference import fit_of
from medssl.models.neighbours import pooled
from medssl.training.ranks import own_device

Task = Literal["segmentation", "classification", "detection"]

_AT_ONCE = 8  # crops through the encoder
_CELLS_A_CROP = 64  # for segmentation: more of one crop are too much alike


def told_task(network: Network) -> Task:
    """What features of a network's encoder can be asked for.

    Raises:
        ConfigError: Boxes, which no frozen feature tells.
    """
    if network.task == "detection":
        raise ConfigError(f"frozen features segment or classify, {type(network).__name__} finds boxes; take light")
    return network.task


@dataclass(frozen=True)
class Told:
    """Features whose answer is known.

    Args:
        features: (N, D).
        answers: (N, classes) share of each output channel in a cell, or 0 and 1 of a crop.
        patients: Of each feature.
    """

    features: Tensor
    answers: Tensor
    patients: NDArray[np.str_]


def told(encoder: Encoder, cases: Sequence[Case], crops: Crops, *, task: Task, count: int, seed: int, classes: int = 1) -> Told:
    """Features, evenly over scans: of what a classifier sees, or of cells of random crops, half of them with lesion if possible.

    Args:
        encoder: Is asked in evaluation mode, where this process trains, and left as and where it was.
        cases: Labelled scans; no other is read.
        crops: Size of crops.
        task: Whether crops or cells have an answer.
        count: Features wanted, about.
        seed: Of the crops.
        classes: Output channels; 1 for lesion against none, else labels and masks hold the number of the channel.
    """
    each, features, answers, patients = math.ceil(count / len(cases)), [], [], list[str]()
    cells = math.prod(size // step for size, step in zip(crops.size, encoder.stride, strict=True))
    with _moved(encoder, own_device()):
        for number, case in enumerate(cases):
            different = case.shape[3] if crops.spatial_dims == 2 else 1  # a classifier sees whole slices or volumes
            few = each if crops.bag > 1 else min(each, different)
            draws = max(2, math.ceil(each / min(cells, _CELLS_A_CROP))) if task == "segmentation" else few
            asked_of = CropDataset([case], replace(crops, lesion_fraction=0.5), seed=seed + number, fit=fit_of(task))
            batch = asked_of.__getitems__(range(draws))
            if task == "classification":
                found, known = _crops(encoder, batch, classes)
            else:
                found, known = _cells(encoder, batch, each, classes, seed=seed + number)
            features.append(found)
            answers.append(known)
            patients += [case.row.patient] * len(known)
    return Told(torch.cat(features), torch.cat(answers), np.array(patients))


@contextmanager
def _moved(encoder: Encoder, device: torch.device) -> Iterator[None]:
    """An encoder on a device for a while."""
    before = next(encoder.parameters()).device
    encoder.to(device)
    try:
        yield
    finally:
        encoder.to(before)


def _crops(encoder: Encoder, batch: Sample, classes: int) -> tuple[Tensor, Tensor]:
    """Pooled features (N, D) of the crops with a label, and the answers (N, classes)."""
    labels = batch["label"].reshape(len(batch["label"]), -1)  # (B, 1), or (B, classes) where several hold at once
    known = (labels >= 0).all(dim=1)
    answers = labels if labels.shape[1] == classes > 1 else _one_hot(labels[:, 0].clamp(min=0), classes)
    return asked(encoder, batch["image"], dense=False)[known], answers[known].float()


def _cells(encoder: Encoder, batch: Sample, count: int, classes: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) of cells and the share of each class in them (N, classes); cells with lesion first, up to half."""
    maps = asked(encoder, batch["image"], dense=True)  # (B, D, *G)
    pool: Callable[..., Tensor] = F.adaptive_avg_pool2d if maps.ndim == 4 else F.adaptive_avg_pool3d
    there = torch.cat([batch["lesion"] > 0, _one_hot(batch["lesion"][:, 0], classes).movedim(-1, 1)], dim=1).float()
    shares = pool(there, tuple(maps.shape[2:])).flatten(2).transpose(1, 2).flatten(0, 1)  # (N, 1 + classes)
    order = torch.randperm(len(shares), generator=torch.Generator().manual_seed(seed))
    lesion, other = order[shares[order, 0] >= 0.5], order[shares[order, 0] < 0.5]
    few = min(len(lesion), max(count // 2, count - len(other)))
    chosen = torch.cat([lesion[:few], other[: count - few]])
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)[chosen], shares[chosen, 1:]


def _one_hot(numbers: Tensor, classes: int) -> Tensor:
    """Numbers of classes (...) -> (..., classes) of 0 and 1; for one class alone, whether the number is above 0."""
    return (numbers > 0)[..., None].float() if classes == 1 else F.one_hot(numbers.long(), classes).float()


@torch.no_grad()
def asked(encoder: Encoder, images: Tensor, *, dense: bool) -> Tensor:
    """Dense (N, D, *G) or pooled (N, D) features in float32 on the CPU; the encoder is left as it was.

    Args:
        encoder: Is asked in evaluation mode.
        images: (N, C, *S), or bags (N, slices, C, *S).
        dense: Whether a feature a cell is wanted.
    """
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    parts = (part.to(device) for part in torch.split(images, _AT_ONCE))
    found = [(encoder.dense(part) if dense else pooled(encoder, part)).float().cpu() for part in parts]
    encoder.train(training)
    return torch.cat(found)
