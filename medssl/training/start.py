"""Where weights come from when a run does not start from scratch: the encoder of another bundle."""

from pathlib import Path

from torch import nn

from medssl.data.seen import Seen
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.bundle import Bundle, read_weights
from medssl.models.encoder import Encoder


def start_from(network: nn.Module, bundle: Path, store: Store) -> tuple[tuple[str, ...], Seen]:
    """Put pretrained weights into an encoder, and into the copies of it that a teacher holds.

    Args:
        network: A lesion network or an objective, with its `encoder`.
        bundle: Of an encoder.
        store: The scans that the run will learn from.

    Returns:
        The lineage, last ancestor first, and what the bundle has seen.

    Raises:
        ConfigError: No encoder, another shape, or another preprocessing.
    """
    pretrained = Bundle.read(bundle)
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise ConfigError(f"{type(network).__name__} has no encoder to start from a bundle; set bundle to null, or take a ViT network")
    if not pretrained.architecture.same_weights(encoder.architecture()):
        raise ConfigError("the network's encoder differs from the bundle's; copy its init_args from bundle.json into the config")
    if pretrained.preprocess != store.preprocess:
        raise ConfigError("the bundle was pretrained with another preprocessing than this store's; prepare the store in the same way")
    weights = read_weights(bundle)
    for part in network.modules():
        if isinstance(part, Encoder) and part.architecture() == pretrained.architecture:
            part.load_state_dict(weights)
    return (pretrained.model_id, *pretrained.lineage), pretrained.seen
