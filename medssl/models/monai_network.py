"""Any segmentation network of MONAI by its class path: SwinUNETR, SegResNet, UNETR, DynUNet, BasicUNet and the others."""

import inspect
import json
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.monai_class import build_monai, monai_class

_NETS = "monai.networks.nets."


class MonaiNetwork(Network):
    """A network of `monai.networks.nets` from scratch, with fresh weights.

    Args:
        network: Class path, such as `monai.networks.nets.SwinUNETR`.
        arguments: Its other arguments, as JSON can hold them.
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: C.
        classes: Output channels; 1 for lesion against the rest.

    Attributes:
        deep_supervision: Whether it gives coarser logits too while it trains, for `scales`.

    Raises:
        ConfigError: Another class, or arguments that do not fit it or cannot be written down.
    """

    task = "segmentation"

    def __init__(
        self, network: str, arguments: dict[str, Any] | None = None, *, spatial_dims: int = 3, in_channels: int = 1, classes: int = 1
    ) -> None:
        super().__init__()
        self.network, self.arguments = network, _plain(arguments or {})
        self.spatial_dims, self.in_channels, self.classes = spatial_dims, in_channels, classes
        own = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": classes}
        twice = sorted(own.keys() & self.arguments.keys())
        if twice:
            raise ConfigError(f"arguments of {network} hold {twice[0]}; give spatial_dims, in_channels and classes beside them")
        known = inspect.signature(monai_class(network, below=_NETS)).parameters
        if not {"in_channels", "out_channels"} <= set(known):
            raise ConfigError(f"{network} has no in_channels and out_channels: it is not a network that segments")
        filled = {name: value for name, value in own.items() if name in known}
        self.net: nn.Module = build_monai(network, {**self.arguments, **filled}, below=_NETS)

    @property
    def deep_supervision(self) -> bool:
        """Whether its arguments ask for coarser logits."""
        return bool(self.arguments.get("deep_supervision")) or int(self.arguments.get("dsdepth", 1)) > 1

    def architecture(self) -> Architecture:
        """What it takes to build this network again."""
        return Architecture.of(
            self,
            network=self.network,
            arguments=self.arguments,
            spatial_dims=self.spatial_dims,
            in_channels=self.in_channels,
            classes=self.classes,
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, classes, *S)."""
        return self.scales(images)[0]

    def scales(self, images: Tensor) -> list[Tensor]:
        """(B, C, *S) -> logits (B, classes, *S_s), full resolution first; coarser ones only in training and where they are asked for.

        Raises:
            ConfigError: The network returns something else.
        """
        maps = [tensor for tensor in _maps(self.net(images), images.ndim) if tensor.shape[1] == self.classes]
        if not maps or maps[0].shape[2:] != images.shape[2:]:
            raise ConfigError(f"{self.network} returns no logits of {self.classes} channels on the grid of its input; take another network")
        return maps


def _maps(output: object, ndim: int) -> Iterator[Tensor]:
    """The tensors of logits in what a network returns; several scales may be stacked along an axis more (DynUNet)."""
    if isinstance(output, Tensor):
        yield from output.unbind(1) if output.ndim == ndim + 1 else [output] if output.ndim == ndim else []
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _maps(part, ndim)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as JSON gives them back.

    Raises:
        ConfigError: JSON cannot hold them.
    """
    try:
        return cast(dict[str, Any], json.loads(json.dumps(arguments)))
    except TypeError as error:
        raise ConfigError("arguments of a network must be numbers, texts, lists or mappings, so that its bundle can be read") from error
