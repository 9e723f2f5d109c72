"""The protocols of fine-tuning by name, and their numbers."""

from dataclasses import dataclass
from typing import Literal

from medssl.errors import ConfigError
from medssl.training.protocols.protocol import FULL, Knn, LayerDecay, Light, Linear, Lora, Partial, Protocol, Sawtooth

Name = Literal["full", "linear", "knn", "light", "partial", "llrd", "sawtooth", "lora", "auto"]

_CONTRASTIVE, _RESTORATIVE, _BOTH = (0.25, 0.5), (0.5, 0.75), (0.25, 0.75)
_DEPTHS = {
    **dict.fromkeys(("SimCLR", "MoCo", "VICReg", "DINO", "Triplet", "ImageText"), _CONTRASTIVE),
    **dict.fromkeys(("MAE", "SimMIM", "SparK"), _RESTORATIVE),
    "Hybrid": _BOTH,
}
"""Share of depth that is tuned after each objective. Khan et al., 2023: the best single quarter is 25-50 % after contrastive, 50-75 % after
restorative pretraining; what a hybrid of both needs is not known, and gets both quarters."""


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
            "knn": Knn(self.neighbours, self.bank),
        }
        return protocols[name]

    def _depth(self, objective: str) -> tuple[float, float]:
        if self.depth is not None:
            return self.depth
        if objective not in _DEPTHS:
            known = ", ".join(_DEPTHS)
            raise ConfigError(
                f"protocol partial knows no depth for an encoder of {objective or 'no known objective'} ({known}); give tuning.depth"
            )
        return _DEPTHS[objective]
