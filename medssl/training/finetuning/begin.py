"""How a fine-tuning run begins: the weights it starts from, the protocol, and the advice behind it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medssl.data.dataset import Case, Crops
from medssl.data.store import Store
from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.training.finetuning.folds import Folds
from medssl.training.protocols.advisor import Advice, advised
from medssl.training.protocols.protocol import Protocol
from medssl.training.protocols.tuning import Name, Tuning
from medssl.training.run import Run
from medssl.training.start import SCRATCH, Start, start_from

logger = logging.getLogger(__name__)

_NOT_DENSE = ("linear", "knn", "auto")


@dataclass(frozen=True)
class Beginning:
    """What a run trains, and why.

    Args:
        network: With the weights that it starts from, as the protocol wants it.
        start: Where they come from.
        protocol: Which of them learn.
        advice: Where it was asked for.
    """

    network: Network
    start: Start
    protocol: Protocol
    advice: Advice | None

    @property
    def facts(self) -> dict[str, object]:
        """What the bundle records of it."""
        advice = {} if self.advice is None else {"advice": asdict(self.advice)}
        steps = {} if self.protocol.learns else {"steps": 0}
        return {**self.start.facts, **advice, **steps, "protocol": self.protocol.facts()}


def check_detector(network: Network, folds: Folds | None, protocol: str) -> None:
    """Whether a network, where it is a detector, can be trained as asked for.

    Raises:
        ConfigError: Folds, whose findings lie in different places and cannot be averaged; or a protocol that replaces the head.
    """
    if network.task != "detection":
        return
    if protocol in _NOT_DENSE:
        raise ConfigError(f"protocol {protocol} has no boxes; give a detector one of full, light, partial, llrd, sawtooth or lora")
    if folds is not None:
        raise ConfigError("a detector has no cross-validation, for the boxes of folds cannot be averaged; leave folds out")


def begin(
    network: Network,
    cases: Sequence[Case],
    crops: Crops,
    store: Store,
    *,
    bundle: Path | None,
    protocol: Name,
    tuning: Tuning,
    run: Run,
    seed: int,
) -> Beginning:
    """Put pretrained weights into a network and choose what learns; validation and test patients are not looked at.

    Args:
        network: As configured.
        cases: Labelled scans of training.
        crops: What the network will be given.
        store: Where the scans are.
        bundle: A pretrained encoder; None to start from scratch.
        protocol: By its name, or `auto`.
        tuning: Numbers of the protocols.
        run: Keeps the advice.
        seed: Of what is drawn.

    Raises:
        ConfigError: A network that does not fit the bundle or the protocol.
    """
    start, advice = SCRATCH if bundle is None else start_from(network, bundle, store, crops), None
    if protocol == "auto":
        advice = advised(network, cases, crops, pretrained=bundle is not None, seed=seed, run=run)
        logger.info("advice: protocol %s. %s", advice.protocol, advice.reason)
        protocol = advice.protocol
    chosen = tuning.protocol(protocol, objective=start.objective)
    if chosen.freezes and bundle is None:
        logger.warning("protocol %s freezes an encoder that starts from no bundle: random weights, or those of another's file", chosen.name)
    rebuilt = chosen.rebuilt(network, cases, crops, seed=seed)
    rebuilt.outputs = network.outputs
    return Beginning(rebuilt, start, chosen, advice)
