"""Protocols of fine-tuning: which weights of a lesion network learn, how fast, and from which step on.

A protocol says it once, as paces of named weights; the training module asks `settle` where what learns changes and `hold` at each step.
What does not learn does not move: its parts are in evaluation mode, so that running statistics rest too.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from medssl.data.dataset import Case, Crops
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.models.linear import LinearSegmenter
from medssl.models.lora import add_adapters, merged
from medssl.models.neighbours import Neighbours
from medssl.training.protocols.features import told, told_task
from medssl.training.schedule import Pace
from medssl.training.settings import Training, plain_name

_ENCODER = "encoder."


class Protocol(ABC):
    """Which weights learn; subclasses are frozen dataclasses of their numbers."""

    name: ClassVar[str]
    freezes: ClassVar[bool] = False  # some weights of the encoder never move
    learns: ClassVar[bool] = True

    def rebuilt(self, network: Network, cases: Sequence[Case], crops: Crops, *, seed: int) -> Network:
        """The network of the run: as it is configured, or around its encoder with another head, or with adapters.

        Args:
            network: As it is configured, with the weights that it starts from.
            cases: Labelled scans of training.
            crops: What the network will be given.
            seed: Of what is drawn anew.
        """
        del cases, crops, seed
        return network

    @abstractmethod
    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """The weights that learn, by the network's names; all others rest."""

    def plain(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights after training as those of the network that goes into the bundle."""
        return weights

    def facts(self) -> dict[str, object]:
        """What a bundle records of it."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Full(Protocol):
    """Everything learns; `training.encoder_rate` may slow the encoder down."""

    name: ClassVar[str] = "full"

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """All weights."""
        return Pace(_head(network)), Pace(_inside(network), training.encoder_rate)


FULL = Full()


@dataclass(frozen=True)
class Light(Protocol):
    """The encoder is frozen; the head or decoder of the configuration learns."""

    name: ClassVar[str] = "light"
    freezes: ClassVar[bool] = True

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """All weights but the encoder's."""
        del training
        encoder_of(network, self.name)
        return (Pace(_head(network)),)


@dataclass(frozen=True)
class Linear(Light):
    """The linear probe: the encoder is frozen, one linear layer learns on its features.

    A classifier keeps its head, which is one linear layer on pooled features.
    """

    name: ClassVar[str] = "linear"

    def rebuilt(self, network: Network, cases: Sequence[Case], crops: Crops, *, seed: int) -> Network:
        """The encoder with a linear head in place of the decoder of the configuration.

        Raises:
            ConfigError: A network of bags, whose attention would learn too.
        """
        del cases, crops, seed
        encoder = encoder_of(network, self.name)
        if network.bags:
            raise ConfigError(
                f"{type(network).__name__} weighs slices with layers that learn too, which is no linear probe; take protocol light"
            )
        return network if told_task(network) == "classification" else LinearSegmenter(encoder, classes=network.classes)


@dataclass(frozen=True)
class Knn(Protocol):
    """Nothing learns: the answers of the nearest remembered crops, or cells of crops, become the scores.

    Args:
        neighbours: How many answer.
        bank: Crops or cells that are remembered.
    """

    name: ClassVar[str] = "knn"
    freezes: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    neighbours: int
    bank: int

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """No weights."""
        del network, training
        return ()

    def rebuilt(self, network: Network, cases: Sequence[Case], crops: Crops, *, seed: int) -> Network:
        """The encoder with the features of labelled scans in place of the head or decoder of the configuration."""
        encoder = encoder_of(network, self.name)
        known = told(encoder, cases, crops, task=told_task(network), count=self.bank, seed=seed, classes=network.classes)
        sizes = {"size": len(known.answers), "classes": network.classes, "neighbours": self.neighbours}
        exclusive = bool(network.outputs.names) and network.outputs.exclusive
        built = Neighbours(encoder, task=told_task(network), bags=network.bags, exclusive=exclusive, **sizes)
        built.remember(known.features, known.answers)
        return built


@dataclass(frozen=True)
class Partial(Protocol):
    """A share of the encoder's depth learns with the head; the layers before and behind it are frozen.

    Args:
        depth: First and last share of the layers that learn, 0 to 1.
    """

    name: ClassVar[str] = "partial"
    freezes: ClassVar[bool] = True
    depth: tuple[float, float]

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """The head, and layers in the middle of the encoder."""
        layers = encoder_of(network, self.name).layers()
        first, end = (round(share * len(layers)) for share in self.depth)
        first = min(first, len(layers) - 1)
        tuned = (name for layer in layers[first : max(end, first + 1)] for name in layer)
        return Pace(_head(network)), Pace(_prefixed(tuned), training.encoder_rate)


@dataclass(frozen=True)
class LayerDecay(Protocol):
    """Everything learns, each layer of the encoder more slowly than the one behind it; `training.encoder_rate` has no part in it.

    As in BEiT (Bao et al., 2021, https://arxiv.org/abs/2106.08254) and the fine-tuning of MAE: a layer has the rate of the head times the
    decay to the power of its distance, 1 for the last layer.

    Args:
        decay: Factor from one layer to the one before it.
    """

    name: ClassVar[str] = "llrd"
    decay: float

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """The head, and every layer at its own rate."""
        del training
        layers = encoder_of(network, self.name).layers()
        slower = [Pace(_prefixed(layer), self.decay ** (len(layers) - number)) for number, layer in enumerate(layers)]
        return Pace(_head(network)), *slower


@dataclass(frozen=True)
class Sawtooth(Protocol):
    """The head or decoder learns alone for a while; then everything does, with a new warm-up.

    nnU-Net's fine-tuning of pretrained encoders (https://github.com/TaWald/nnUNet).

    Args:
        share: Of the steps, in which the encoder rests.
    """

    name: ClassVar[str] = "sawtooth"
    share: float

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """The head from the start and anew, the encoder later."""
        encoder_of(network, self.name)
        turn = max(1, round(self.share * training.steps))
        return Pace(_head(network), starts=(0, turn)), Pace(_inside(network), training.encoder_rate, starts=(turn,))


@dataclass(frozen=True)
class Lora(Protocol):
    """The encoder is frozen; low-rank differences of its linear layers learn with the head and are added to it at the end.

    Args:
        rank: Of the differences.
        alpha: Their strength.
    """

    name: ClassVar[str] = "lora"
    freezes: ClassVar[bool] = True
    rank: int
    alpha: float

    def rebuilt(self, network: Network, cases: Sequence[Case], crops: Crops, *, seed: int) -> Network:
        """The network with adapters."""
        del cases, crops
        add_adapters(encoder_of(network, self.name), rank=self.rank, alpha=self.alpha, generator=torch.Generator().manual_seed(seed))
        return network

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """The head and the adapters."""
        del training
        adapters = {name for name in _inside(network) if ".parametrizations.weight.0." in name}
        return (Pace(_head(network) | adapters),)

    def plain(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapters added to their matrices: the bundle needs none."""
        return merged(weights, rank=self.rank, alpha=self.alpha)


def encoder_of(network: nn.Module, protocol: str) -> Encoder:
    """The encoder of a network.

    Raises:
        ConfigError: It has none, so a protocol that treats it apart does not apply.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"protocol {protocol} needs a network with an encoder, {type(network).__name__} has none; take protocol full")
    return encoder


def _inside(network: nn.Module) -> frozenset[str]:
    """Names of the encoder's weights; none where there is no encoder."""
    return frozenset(name for name, _ in network.named_parameters() if name.startswith(_ENCODER))


def _head(network: nn.Module) -> frozenset[str]:
    """Names of all other weights."""
    return frozenset(name for name, _ in network.named_parameters()) - _inside(network)


def _prefixed(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_ENCODER + name for name in names)


def freeze(network: nn.Module, paces: Sequence[Pace]) -> None:
    """No gradients for weights that never learn."""
    learning = frozenset[str]().union(*(pace.names for pace in paces))
    for name, parameter in network.named_parameters():
        if name not in learning:
            parameter.requires_grad_(False)


def settle(network: nn.Module, paces: Sequence[Pace], step: int) -> None:
    """Evaluation mode for the parts whose weights all rest at a step, training mode for the others.

    Nothing is dropped in a part that rests, and its running statistics stay.
    """
    resting = _resting(network, paces, step)
    if not resting and all(pace.starts[0] == 0 for pace in paces):
        return
    network.train()
    for prefix, part in network.named_modules():
        names = [plain_name(name) for name, _ in part.named_parameters(prefix)]
        if names and resting.issuperset(names):
            part.eval()


def hold(network: nn.Module, paces: Sequence[Pace], step: int) -> None:
    """Drop the gradients of weights that rest at a step and learn later: the optimiser passes by what has none, and clipping too.

    Their gradients are computed nonetheless, because processes that train together expect them.
    """
    later = frozenset[str]().union(*(pace.names for pace in paces if pace.starts[0] > step))
    if later:
        for name, parameter in network.named_parameters():
            if plain_name(name) in later:
                parameter.grad = None


def _resting(network: nn.Module, paces: Sequence[Pace], step: int) -> frozenset[str]:
    """Names of the weights that do not learn at a step."""
    awake = frozenset[str]().union(*(pace.names for pace in paces if pace.starts[0] <= step))
    return frozenset(plain_name(name) for name, _ in network.named_parameters()) - awake
