"""Any network of MONAI as an encoder, by its class path.

The network is asked for its features once, on an empty crop, when it is built: that shows the channels and the stride of its maps, and the
parts of it that the features do not need; those are left out.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture
from medssl.models.encoder import Encoder, check_hidden, grouped, visible_cells
from medssl.models.monai_class import build_monai, one_line
from medssl.models.patches import as_map


class MonaiEncoder(Encoder):
    """The feature maps of a MONAI network.

    Hidden blocks are zeros in the input and nothing more: what is visible may spread into them, as in SimMIM, and normalisation sees the
    zeros. `ResidualEncoder` and `ViT` leave hidden blocks out properly.

    Args:
        network: Class path below `monai.networks`, such as `monai.networks.nets.SwinUNETR`.
        arguments: Its arguments, with `in_channels` (or `in_chans`) for more than one channel.
        crop: A crop that the network takes, small for speed; two numbers for slices, three for volumes. A network of tokens takes no other.
        features: The part or method of the network that returns feature maps, such as `swinViT` of SwinUNETR, `encode` of SegResNet or
            `features` of DenseNet; empty for the network itself, such as ViT.

    Raises:
        ConfigError: Another class, arguments that do not fit it, or no feature maps.
    """

    def __init__(self, network: str, arguments: dict[str, Any], *, crop: Sequence[int], features: str = "") -> None:
        super().__init__()
        self.network, self.arguments, self.crop, self.features = network, dict(arguments), tuple(crop), features
        self.spatial_dims = len(self.crop)
        self.in_channels = int(arguments.get("in_channels", arguments.get("in_chans", 1)))
        whole = build_monai(network, self.arguments)
        found = getattr(whole, features, None) if features else whole
        if not callable(found):
            raise ConfigError(f"{network} has no part or method {features!r}; name one that returns feature maps, or leave features empty")
        self.net = found if isinstance(found, nn.Module) else whole
        self._method = "" if isinstance(found, nn.Module) else features
        maps = self._probe()
        self._widths = tuple(features_map.shape[1] for features_map in maps)
        self._strides = tuple(
            tuple(size // cells for size, cells in zip(self.crop, features_map.shape[2:], strict=True)) for features_map in maps
        )
        self.width, self.stride = self._widths[-1], self._strides[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map, finest first."""
        return self._widths

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Input voxels per cell of each map, finest first."""
        return self._strides

    def architecture(self) -> Architecture:
        """What it takes to build this encoder again."""
        return Architecture.of(self, network=self.network, arguments=self.arguments, crop=list(self.crop), features=self.features)

    def layers(self) -> list[tuple[str, ...]]:
        """The parts that the network is put together from, such as a dense block or a stage of a Swin transformer."""
        prefix, part = "net", self.net
        while len(own := [(name, child) for name, child in part.named_children() if any(True for _ in child.parameters())]) == 1:
            prefix, part = f"{prefix}.{own[0][0]}", own[0][1]
        units = [
            f"{prefix}.{name}.{number}" if isinstance(child, nn.ModuleList) else f"{prefix}.{name}"
            for name, child in own
            for number in (range(len(child)) if isinstance(child, nn.ModuleList) else (0,))
        ]
        return grouped(self, units) or super().layers()

    def pyramid(self, images: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """Feature maps (B, D_s, *S / stride_s), finest first.

        Args:
            images: (B, C, *S), each S a multiple of the stride; the crop itself where the network has tokens.
            hidden: (B, *K) bool; hidden blocks are zeros in the input.

        Raises:
            ConfigError: Images that the network does not take.
        """
        shape = images.shape[2:]
        if len(shape) != self.spatial_dims or any(size % step for size, step in zip(shape, self.stride, strict=True)):
            raise ConfigError(f"crop {list(shape)} is not a multiple of the encoder's stride {list(self.stride)}; change one of them")
        if self._returns_tokens and tuple(shape) != self.crop:
            raise ConfigError(f"{self.network} returns tokens: it takes crops of {list(self.crop)} alone, got {list(shape)}")
        if hidden is not None:
            check_hidden(images, hidden)
            images = images * visible_cells(hidden, shape).to(images)
        return self._maps(images)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The maps among what the network returns, one for each grid, finest first."""
        output = getattr(self.net, self._method)(images) if self._method else self.net(images)
        tensors = list(_tensors(output))
        maps = {tuple(tensor.shape[2:]): tensor for tensor in tensors if tensor.ndim == images.ndim}
        self._returns_tokens = not maps
        if self._returns_tokens:
            return [self._token_map(tensor) for tensor in tensors if tensor.ndim == 3][:1]
        return sorted(maps.values(), key=lambda tensor: -math.prod(tensor.shape[2:]))

    def _token_map(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) of the crop, or of the crop after tokens without a place, as a map."""
        patch = self.arguments.get("patch_size")
        sides = [patch] * self.spatial_dims if isinstance(patch, int) else list(patch or [])
        if len(sides) != self.spatial_dims:
            raise ConfigError(f"{self.network} returns tokens: its arguments need patch_size with {self.spatial_dims} numbers")
        grid = [size // side for size, side in zip(self.crop, sides, strict=True)]
        return as_map(tokens[:, tokens.shape[1] - math.prod(grid) :], grid)

    def _probe(self) -> list[Tensor]:
        """Maps of an empty crop; drops the parts of the network that no map depends on, and freezes single parameters of that kind."""
        training = self.net.training
        try:
            with torch.enable_grad():
                self.net.eval()
                maps = self._maps(torch.zeros(1, self.in_channels, *self.crop))
                total = sum((features_map.sum() for features_map in maps), torch.zeros(()))
                parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
                gradients = torch.autograd.grad(total, parameters, allow_unused=True) if maps and parameters else []
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(f"{self.network} does not take crops {[self.in_channels, *self.crop]}: {one_line(error)}") from error
        if not maps:
            raise ConfigError(f"{self.network} returns no feature maps; name the part that does in features")
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)  # one without a gradient would stop distributed training
        for name, child in list(self.net.named_children()):
            owned = list(child.parameters())
            if owned and not any(parameter.requires_grad for parameter in owned):
                delattr(self.net, name)
        self.net.train(training)
        return [features_map.detach() for features_map in maps]


def _tensors(output: object) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
