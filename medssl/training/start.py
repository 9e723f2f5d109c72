"""Where weights come from when a run does not start from scratch: the encoder of another bundle, pretrained or fine-tuned."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from medssl.data.dataset import Crops
from medssl.data.seen import Seen
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.adaptation import Input, check_alike, fitted
from medssl.models.architecture import Architecture
from medssl.models.bundle import Bundle, read_weights
from medssl.models.encoder import Encoder

_ENCODER = "encoder."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a run starts from; the defaults are random weights.

    Args:
        lineage: Identities of the bundle and of those before it, the nearest first.
        seen: What the bundle has learned from.
        objective: Class name of the objective that its encoder was last pretrained with; empty where there is none.
        adapted: What was adapted in its weights, a sentence each.
    """

    lineage: tuple[str, ...] = ()
    seen: Seen = field(default_factory=dict)
    objective: str = ""
    adapted: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What a bundle records of it, beside the lineage."""
        adapted = {"adapted": list(self.adapted)} if self.adapted else {}
        return adapted | ({"pretrained_with": self.objective} if self.objective else {})


SCRATCH = Start()


def start_from(network: nn.Module, bundle: Path, store: Store, crops: Crops | None = None) -> Start:
    """Put pretrained weights into an encoder, and into the copies of it that a teacher holds.

    More channels than the bundle's encoder has get its stem repeated; learned positions of another grid are interpolated.

    Args:
        network: A lesion network or an objective, with its `encoder`.
        bundle: Of an encoder, or of a lesion network on an encoder, of which the head or decoder is left behind.
        store: The scans that the run will learn from.
        crops: What the network will be given; None for crops like those of the bundle.

    Raises:
        ConfigError: No encoder in the network or in the bundle, two that differ in more than channels and positions, or another
            preprocessing.
    """
    pretrained = Bundle.read(bundle)
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"{type(network).__name__} has no encoder to start from a bundle; set bundle to null, or take a ViT network")
    architecture, weights = _encoder_in(pretrained, bundle)
    check_alike(architecture, encoder.architecture())
    if pretrained.preprocess != store.preprocess:
        raise ConfigError("the bundle was pretrained with another preprocessing than this store's; prepare the store in the same way")
    before = Input(pretrained.window.size, pretrained.window.context)
    after = before if crops is None else Input(tuple(crops.size), crops.context)
    weights, adapted = fitted(weights, architecture, encoder, before=before, after=after)
    for part in network.modules():
        if isinstance(part, Encoder) and part.architecture().same_weights(encoder.architecture()):
            part.load_state_dict(weights)
    for what in adapted:
        logger.info("adapted: %s", what)
    objective = str(pretrained.training.get("objective") or pretrained.training.get("pretrained_with", ""))
    return Start((pretrained.model_id, *pretrained.lineage), pretrained.seen, objective, tuple(adapted))


def _encoder_in(bundle: Bundle, folder: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """The encoder of a bundle, which is one or is built on one, and its weights."""
    weights, found = read_weights(folder), bundle.architecture
    if bundle.kind == "encoder":
        return found, weights
    inner = found.init_args.get("encoder")
    if not isinstance(inner, Architecture):
        name = found.class_path.rpartition(".")[2]
        raise ConfigError(f"the bundle holds a {name}, which is not built on one encoder; give an encoder's bundle, or that of one fold")
    return inner, {name.removeprefix(_ENCODER): tensor for name, tensor in weights.items() if name.startswith(_ENCODER)}
