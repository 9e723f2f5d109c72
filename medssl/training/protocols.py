"""Protocols of fine-tuning: which weights of a lesion network learn, how fast, and from which step on.

A protocol says it once, as paces of named weights; the training module asks `settle` and `hold` at each step. What does not learn does not
move: its parts are in evaluation mode, so that running statistics rest too.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.encoder import Encoder
from medssl.models.heads import Classifier
from medssl.models.linear import LinearSegmenter
from medssl.models.lora import add_adapters, merged
from medssl.training.schedule import Pace
from medssl.training.settings import Training, plain_name

Name = Literal["full", "linear", "knn", "light", "partial", "llrd", "sawtooth", "lora", "auto"]

_ENCODER = "encoder."
_CONTRASTIVE, _RESTORATIVE, _BOTH = (0.25, 0.5), (0.5, 0.75), (0.25, 0.75)
_DEPTHS = {
    **dict.fromkeys(("SimCLR", "MoCo", "VICReg", "DINO", "Triplet", "ImageText"), _CONTRASTIVE),
    **dict.fromkeys(("MAE", "SimMIM", "SparK"), _RESTORATIVE),
    "Hybrid": _BOTH,
}
"""Share of depth that is tuned after each objective. Khan et al., 2023: the best single quarter is 25-50 % after contrastive, 50-75 % after
restorative pretraining; what a hybrid of both needs is not known, and gets both quarters."""


class Protocol(ABC):
    """Which weights learn; subclasses are frozen dataclasses of their numbers."""

    name: ClassVar[str]

    def rebuilt(self, network: Network, *, seed: int) -> Network:
        """The network that is trained: as it is configured, or around its encoder with another head, or with adapters.

        Args:
            network: As it is configured, with the weights that it starts from.
            seed: Of what is drawn anew.
        """
        del seed
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

    def paces(self, network: Network, training: Training) -> tuple[Pace, ...]:
        """All weights but the encoder's."""
        del training
        encoder_of(network, self.name)
        return (Pace(_head(network)),)


@dataclass(frozen=True)
class Linear(Light):
    """The linear probe: the encoder is frozen, one linear layer learns on its features."""

    name: ClassVar[str] = "linear"

    def rebuilt(self, network: Network, *, seed: int) -> Network:
        """The encoder with a linear head in place of the one of the configuration."""
        del seed
        encoder, classes = encoder_of(network, self.name), int(getattr(network, "classes", 1))
        if network.task == "segmentation":
            return LinearSegmenter(encoder, classes=classes)
        return network if isinstance(network, Classifier) else Classifier(encoder, classes=classes)


@dataclass(frozen=True)
class Partial(Protocol):
    """A share of the encoder's depth learns with the head; the layers before and behind it are frozen.

    Args:
        depth: First and last share of the layers that learn, 0 to 1.
    """

    name: ClassVar[str] = "partial"
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

    As in BEiT (Bao et al., 2021, https://arxiv.org/abs/2106.08254) and the fine-tuning of MAE: the rate of a layer is that of the head times
    the decay to the power of the layers between them, plus one.

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
    rank: int
    alpha: float

    def rebuilt(self, network: Network, *, seed: int) -> Network:
        """The network with adapters."""
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


def _prefixed(names: Sequence[str]) -> frozenset[str]:
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


@dataclass(frozen=True)
class Tuning:
    """Numbers of the protocols; each reads its own.

    Args:
        depth: `partial`: first and last share of the encoder's layers that learn; None for what suits the objective of the bundle.
        decay: `llrd`: factor on the rate from one layer to the one before it.
        decoder_first: `sawtooth`: share of the steps in which the encoder rests.
        rank: `lora`: of the differences.
        alpha: `lora`: their strength; their factor is alpha / rank.
        neighbours: `knn`: how many answer.
        bank: `knn`: crops (cells of crops for segmentation) that are remembered.

    Raises:
        ConfigError: A value out of range.
    """

    depth: tuple[float, float] | None = None
    decay: float = 0.75
    decoder_first: float = 0.1
    rank: int = 8
    alpha: float = 16.0
    neighbours: int = 20
    bank: int = 4096

    def __post_init__(self) -> None:
        if self.depth is not None and not 0 <= self.depth[0] < self.depth[1] <= 1:
            raise ConfigError(f"tuning.depth takes two rising shares from 0 to 1, got {list(self.depth)}")
        if not 0 < self.decay <= 1 or not 0 < self.decoder_first < 1:
            raise ConfigError(f"tuning.decay must lie in (0, 1] and decoder_first in (0, 1), got {self.decay} and {self.decoder_first}")
        if min(self.rank, self.neighbours, self.bank) < 1 or self.alpha <= 0:
            raise ConfigError("tuning.rank, neighbours and bank must be >= 1, alpha > 0")

    def protocol(self, name: Name, *, objective: str = "") -> Protocol:
        """The protocol of a name, with its numbers.

        Args:
            name: Any but `auto`, which is a question to the advisor.
            objective: Class name of the objective that the encoder was pretrained with; empty where that is not known.

        Raises:
            ConfigError: `partial` after an objective whose depth is not known.
        """
        if name == "partial":
            return Partial(self._depth(objective))
        protocols: dict[str, Protocol] = {
            "full": FULL,
            "linear": Linear(),
            "light": Light(),
            "llrd": LayerDecay(self.decay),
            "sawtooth": Sawtooth(self.decoder_first),
            "lora": Lora(self.rank, self.alpha),
        }
        return protocols[name]

    def _depth(self, objective: str) -> tuple[float, float]:
        if self.depth is not None:
            return self.depth
        if objective not in _DEPTHS:
            known = ", ".join(_DEPTHS)
            raise ConfigError(f"protocol partial knows no depth for an encoder of {objective or 'no bundle'} ({known}); give tuning.depth")
        return _DEPTHS[objective]
