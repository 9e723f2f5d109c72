"""Whether labels, masks, network and loss of a fine-tuning run fit each other, and how often each class occurs."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medssl.data.agreement import check_agreement, check_named
from medssl.data.classes import Classes
from medssl.data.dataset import Case, Crops
from medssl.errors import ConfigError, ManifestError
from medssl.models.architecture import Network
from medssl.models.outputs import Outputs
from medssl.training.losses import CrossEntropy, DiceCrossEntropy, Loss, Tversky


def tell_apart(network: Network, classes: Classes, loss: Loss | None, crops: Crops) -> None:
    """Give the channels of a network their meaning, where classes, loss and crops fit it.

    Raises:
        ConfigError: They do not, see `outputs_of` and `check_loss`.
    """
    network.outputs = outputs_of(classes, network)
    check_loss(loss, network, crops)


def outputs_of(classes: Classes, network: Network) -> Outputs:
    """What the channels of a network mean.

    Raises:
        ConfigError: A network with another number of channels, segmentation of classes that do not exclude each other, one class alone,
            exclusive classes of a classifier that are all positive, or classes of a detector.
    """
    if network.task == "detection" and classes.names:
        raise ConfigError("a detector finds lesion against none; leave labels.classes out, labels.positive says what a lesion is")
    if network.task == "classification" and len(classes.names) == 1 and not classes.multi_label:
        raise ConfigError(
            "labels.classes names one class: name the class of nothing there too, or leave classes out for lesion against none"
        )
    if network.task == "classification" and not classes.multi_label and set(classes.positives) == set(classes.names) != set():
        raise ConfigError(
            f"every one of labels.classes {list(classes.names)} is positive and a scan has one of them, so that every scan would score 1; "
            "name those that verdicts are about in labels.positive"
        )
    background = network.task == "segmentation" and bool(classes.names)
    if background and classes.multi_label:
        raise ConfigError("labels.multi_label is for classifiers: a voxel has one class; leave it out, or give a classifier")
    positive = classes.positives if classes.names else ()
    outputs = Outputs(classes.names, positive, not classes.multi_label, background, classes.mask_values)
    if network.classes != outputs.channels:
        named = f"{len(classes.names)} named classes" if classes.names else "lesion against none"
        needed = f"{outputs.channels}{' with the background' if background else ''}"
        raise ConfigError(f"the network has {network.classes} output channels, {named} need {needed}: set network.init_args.classes")
    return outputs


def check_loss(loss: Loss | None, network: Network, crops: Crops) -> None:
    """Whether a loss and crops suit the task.

    Raises:
        ConfigError: A loss of masks for a classifier, bags for a network of single slices or the other way round.
    """
    if network.task == "classification" and isinstance(loss, DiceCrossEntropy | Tversky):
        raise ConfigError(f"{type(loss).__name__} is a loss of masks; give a classifier CrossEntropy or Focal")
    if network.task == "detection" and loss is not None:
        raise ConfigError(f"a detector has a loss of its own, got {type(loss).__name__}; leave loss out")
    if network.bags != (crops.bag > 1):
        wanted = "crops.bag above 1" if network.bags else "crops.bag 1"
        raise ConfigError(f"{type(network).__name__} needs {wanted}, got {crops.bag}")


def is_usable(network: Network, case: Case) -> bool:
    """Whether the answer of a scan is known in the way that a network needs."""
    if network.task != "classification":
        return case.known
    by_slice = case.known and network.spatial_dims == 2 and not network.bags
    return by_slice or -1 not in case.target


def check_cases(network: Network, cases: Sequence[Case], *, split: str, held: Sequence[Case] = ()) -> None:
    """Whether the labels and masks of scans agree, and every class has a patient to learn from.

    Args:
        network: What is trained.
        cases: Scans to learn from.
        split: Their name.
        held: Scans that weights or thresholds are chosen on, whose labels and masks have to agree as well.

    Raises:
        ManifestError: `label_mismatch` for a scan whose class says lesion and whose mask is empty, or the other way round; `bad_label` for
            what masks hold and no class names; `no_rows` for a class without a patient.
    """
    every = list({case.row.scan_id: case for case in (*cases, *held)}.values())
    check_agreement(every)
    check_named(every)
    patients = patients_by_class(network, cases)
    missing = [name for name, found in patients.items() if not found]
    if missing:
        counts = ", ".join(f"{name} {len(found)}" for name, found in patients.items())
        raise ManifestError("no_rows", f"class {missing[0]!r} has no patient in split {split!r} ({counts}); label some, or leave it out")


def patients_by_class(network: Network, cases: Sequence[Case]) -> dict[str, set[str]]:
    """The patients of each class that a network has to tell apart; a segmenter of lesion against none needs lesion alone."""
    classes = cases[0].classes
    found: dict[str, set[str]] = {name: set() for name in _wanted(network, classes)}
    for case in cases:
        for name in _held(network, case):
            found.setdefault(name, set()).add(case.row.patient)
    return found


def _wanted(network: Network, classes: Classes) -> tuple[str, ...]:
    if classes.names:
        return classes.names
    return ("lesion", "no lesion") if network.task == "classification" else ("lesion",)


def _held(network: Network, case: Case) -> Iterator[str]:
    """The classes that a scan is an example of."""
    names = case.classes.names
    if network.task != "classification":
        numbers = {number for value, number in case.numbers.items() if len(case.slices_of(value))}
        yield from (names[number - 1] if names else "lesion" for number in sorted(numbers))
        return
    for target in set(targets(network, case)):
        if -1 in target:
            continue
        if not names:
            yield "lesion" if target[0] else "no lesion"
        elif case.classes.multi_label:
            yield from (name for name, there in zip(names, target, strict=True) if there)
        else:
            yield names[target[0]]


def targets(network: Network, case: Case) -> list[tuple[int, ...]]:
    """The answers that a classifier learns from a scan: that of the scan, or of each slice where they are known."""
    if not (network.spatial_dims == 2 and not network.bags and case.known and case.shape[3] > 1):
        return [case.target]
    return [case.slice_target(k) for k in range(case.shape[3])]


def channel_weights(loss: Loss | None, network: Network, cases: Sequence[Case]) -> Tensor | None:
    """(2, channels): how much a channel that does not hold counts, and how much one that does; None for all alike.

    Balanced weights are N / (n_groups * n) for a class with n of N slices, scans or voxels: they are 1 where all classes are equal.

    Raises:
        ConfigError: Another number of weights than the network needs.
    """
    weights = loss.weights if isinstance(loss, CrossEntropy) else "equal"
    if weights == "equal":
        return None
    channels = network.outputs.channels
    if isinstance(weights, tuple):
        needed = max(channels, 2)
        if len(weights) != needed or min(weights) < 0:
            raise ConfigError(f"loss.weights needs {needed} numbers >= 0, got {list(weights)}")
        return torch.tensor([weights[:1], weights[1:]] if channels == 1 else [(1.0,) * channels, weights])
    holds, count = _occurrences(network, cases)
    held = torch.tensor([holds[channel] for channel in range(channels)], dtype=torch.float32).clamp(min=1)
    groups = channels if network.outputs.exclusive and network.outputs.names else 2
    return count / (groups * torch.stack([(count - held).clamp(min=1), held]))


def _occurrences(network: Network, cases: Sequence[Case]) -> tuple[Counter[int], int]:
    """How often each channel holds, and of how many: voxels for a segmenter, slices or scans for a classifier."""
    holds: Counter[int] = Counter()
    if network.task != "classification":
        shift = 0 if network.outputs.names else 1  # number 1 is channel 1 behind a background, and the only channel without
        for case in cases:
            mask = case.mask
            voxels = {} if mask is None else mask.counts()
            for value, number in case.numbers.items():
                holds[number - shift] += voxels.get(value, 0)
        count = sum(case.shape[1] * case.shape[2] * case.shape[3] for case in cases)
        if network.outputs.names:
            holds[0] = count - sum(holds.values())
        return holds, count
    known = [target for case in cases for target in targets(network, case) if -1 not in target]
    for target in known:
        by_index = network.outputs.exclusive and bool(network.outputs.names)
        holds.update([target[0]] if by_index else [channel for channel, there in enumerate(target) if there])
    return holds, len(known)
