"""How a network is written down: a class path and its arguments, so that a bundle can be rebuilt without running foreign code."""

import importlib
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import nn

from medssl.errors import BundleError
from medssl.models.outputs import Outputs

_ALLOWED = ("medssl.models.",)  # a bundle may be a stranger's: it names one of our classes, nothing else
DROPPED_IN_TRAINING = frozenset({"drop_path", "dropout"})


@dataclass(frozen=True)
class Architecture:
    """A network as data.

    Args:
        class_path: Import path of a class below `medssl.models`.
        init_args: Its arguments; a nested network is itself an architecture.
    """

    class_path: str
    init_args: dict[str, object]

    @classmethod
    def of(cls, network: nn.Module, /, **init_args: object) -> "Architecture":
        """The architecture of a network, from the arguments it was built with."""
        return cls(f"{type(network).__module__}.{type(network).__qualname__}", init_args)

    @staticmethod
    def changed(network_class: type[nn.Module], **options: object) -> dict[str, object]:
        """The options that differ from the constructor's defaults: an option added later leaves older descriptions as they are."""
        parameters = inspect.signature(network_class).parameters
        return {name: value for name, value in options.items() if value != parameters[name].default}

    @property
    def is_ours(self) -> bool:
        """Whether the class is one that a bundle may name."""
        return self.class_path.startswith(_ALLOWED)

    def same_weights(self, other: "Architecture") -> bool:
        """Whether weights of one are weights of the other: all is equal but what is dropped in training."""
        return self._held() == other._held()

    def _held(self) -> tuple[str, dict[str, object]]:
        held = {name: value for name, value in self.init_args.items() if name not in DROPPED_IN_TRAINING}
        return self.class_path, {name: value._held() if isinstance(value, Architecture) else value for name, value in held.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, object]) -> "Architecture":
        """Read back from JSON.

        Raises:
            BundleError: The fields do not describe a network.
        """
        class_path, init_args = fields.get("class_path"), fields.get("init_args")
        if not isinstance(class_path, str) or not isinstance(init_args, dict):
            raise BundleError("the architecture needs class_path and init_args")
        nested = {key: cls.from_dict(value) if _is_nested(value) else value for key, value in init_args.items()}
        return cls(class_path, nested)

    def build(self) -> nn.Module:
        """A network with fresh weights.

        Raises:
            BundleError: A class outside `medssl.models`, or arguments that do not fit it.
        """
        if not self.is_ours:
            raise BundleError(f"the architecture names a class outside {_ALLOWED[0].rstrip('.')}; it is not loaded")
        module, _, name = self.class_path.rpartition(".")
        try:
            network_class = getattr(importlib.import_module(module), name)
            if not (inspect.isclass(network_class) and issubclass(network_class, nn.Module)):
                raise TypeError("not a class of networks")  # such as a function that writes files
            arguments = {key: value.build() if isinstance(value, Architecture) else value for key, value in self.init_args.items()}
            inspect.signature(network_class).bind(**arguments)
        except (ImportError, AttributeError, TypeError) as error:
            raise BundleError("the architecture does not fit this version of medssl; look at its versions in bundle.json") from error
        network: nn.Module = network_class(**arguments)
        return network


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"class_path", "init_args"}


class Network(nn.Module, ABC):
    """A lesion network: images (B, C, *S) to logits; it can be written down.

    Attributes:
        task: `segmentation`: logits (B, classes, *S); `classification`: logits (B, classes); `detection`: maps of `CentreDetector`.
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: C.
        classes: Output channels.
        bags: It takes bags (B, N, C, *S) of the slices of a scan, and answers for the scan.
        outputs: What the output channels mean; set by training and by the bundle.
    """

    task: Literal["segmentation", "classification", "detection"]
    spatial_dims: int
    in_channels: int
    classes: int = 1
    bags: bool = False
    outputs: Outputs = Outputs()

    @abstractmethod
    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
