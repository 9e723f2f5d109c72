"""Weights of a pretrained encoder fitted to one that differs from it in channels or positions, and in nothing else.

Stems take more channels by repeating their weights, divided by the number (Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017,
section 2.4, https://arxiv.org/abs/1705.07750): equal channels give what one gave. Learned positions are interpolated (Dosovitskiy et al.,
2020, section 3.2, https://arxiv.org/abs/2010.11929); sine-cosine and rotary ones are computed for any grid.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.architecture import DROPPED_IN_TRAINING, Architecture
from medssl.models.encoder import Encoder
from medssl.models.foreign import inflated
from medssl.models.patches import grid_of, resized_positions
from medssl.models.vit import ViT

_CHANNELS = frozenset({"in_channels", "arguments.in_channels", "arguments.in_chans"})
_GRIDS = frozenset({"position_grid", "crop", "arguments.img_size"})


@dataclass(frozen=True)
class Input:
    """What an encoder is given.

    Args:
        size: Voxels of a crop along each axis.
        context: Neighbouring slices among the channels: channel c of slice s is number c * context + s.
    """

    size: tuple[int, ...]
    context: int = 1


def check_alike(found: Architecture, wanted: Architecture) -> None:
    """Whether weights of one encoder can be fitted to another.

    Args:
        found: Of the bundle.
        wanted: Of the network.

    Raises:
        ConfigError: They differ in more than channels and positions; the differences are named.
    """
    if found.class_path != wanted.class_path:
        raise ConfigError(f"the network's encoder differs from the bundle's: it is {wanted.class_path}, not {found.class_path}")
    ours, theirs = dict(_flat(wanted.init_args)), dict(_flat(found.init_args))
    other = sorted(name for name in {*ours, *theirs} - _CHANNELS - _GRIDS if ours.get(name) != theirs.get(name))
    if other:
        named = ", ".join(f"{name} {ours.get(name, 'its default')} (bundle: {theirs.get(name, 'its default')})" for name in other)
        raise ConfigError(
            f"the network's encoder differs from the bundle's in {named}; copy its init_args from bundle.json into the config"
        )


def _flat(fields: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and values of nested settings; sequences of all kinds are alike."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name not in DROPPED_IN_TRAINING:
            yield prefix + name, list(value) if isinstance(value, list | tuple) else value


def fitted(
    weights: Mapping[str, Tensor], found: Architecture, encoder: Encoder, *, before: Input, after: Input
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a bundle in the shapes of an encoder.

    Args:
        weights: Of the bundle.
        found: Architecture of the bundle, alike enough for `check_alike`.
        encoder: That gets them; it is not changed.
        before: What the bundle's encoder was given.
        after: What this one is given.

    Returns:
        The weights, and a sentence for each thing that was adapted.

    Raises:
        ConfigError: A weight whose shape cannot be adapted.
    """
    target, said, result = encoder.state_dict(), dict[str, str](), dict(weights)
    for name, tensor in weights.items():
        if name not in target or tensor.shape == target[name].shape:
            continue
        if name == "position_table" or tensor.ndim == 3 and "position" in name:
            grids = _grid(found), _grid(encoder.architecture())
            result[name], said["positions"] = (
                _positions(tensor, *grids),
                f"learned positions of {_by(grids[0])} patches for {_by(grids[1])}",
            )
        else:
            result[name] = _stem(tensor, target[name], encoder, before, after)
            said["stem"] = f"first layer of {_channels(_of(found), before)} for {_channels(encoder.in_channels, after)}"
        if result[name].shape != target[name].shape:
            raise ConfigError(
                f"{name} has shape {list(tensor.shape)} in the bundle and {list(target[name].shape)} in the network; it cannot be adapted"
            )
    computed = _computed(encoder, before, after)
    return result, [*said.values(), *([computed] if computed else [])]


def _stem(weight: Tensor, target: Tensor, encoder: Encoder, before: Input, after: Input) -> Tensor:
    """A first layer (O, C * context, *K), or (O, P * C * context) of a ViT, for another number of channels or of slices."""
    if isinstance(encoder, ViT) and weight.ndim == 2:
        kernels = weight.reshape(len(weight), math.prod(encoder.patch), -1).movedim(2, 1)  # (O, C, P)
        return resliced(kernels, encoder.in_channels, before=before.context, after=after.context).movedim(1, 2).flatten(1)
    if weight.ndim < 3 or weight.shape[2:] != target.shape[2:]:
        return weight
    return resliced(weight, target.shape[1], before=before.context, after=after.context)


def resliced(weight: Tensor, channels: int, *, before: int, after: int) -> Tensor:
    """Weights (O, C0 * before, *K) for (O, channels, *K), of which `after` slices a sequence: equal input gives what it gave.

    Where the number of slices stays, each keeps its own weights, whatever the number of sequences; and the other way round.

    Args:
        weight: Of a first layer.
        channels: Wanted, slices times sequences.
        before: Slices of the weights.
        after: Slices wanted.
    """
    if weight.shape[1] % before or channels % after:
        return inflated(weight, channels)
    parts = weight.reshape(len(weight), -1, before, *weight.shape[2:])  # (O, C0, slices, *K)
    more = inflated(parts, channels // after)
    return inflated(more.transpose(1, 2), after).transpose(1, 2).flatten(1, 2)


def _positions(table: Tensor, grid: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """A table (N, D) or (1, N, D) of one grid for another."""
    resized = resized_positions(table.reshape(-1, table.shape[-1]), grid, wanted)
    return resized if table.ndim == 2 else resized[None]


def _grid(architecture: Architecture) -> tuple[int, ...]:
    """Patches along each axis that a table of positions is made for."""
    fields = architecture.init_args
    if "position_grid" in fields:
        return tuple(cast(Sequence[int], fields["position_grid"]))
    crop, patch = cast(Sequence[int], fields["crop"]), cast(Mapping[str, object], fields["arguments"]).get("patch_size")
    return grid_of(crop, [patch] * len(crop) if isinstance(patch, int) else cast(Sequence[int], patch))


def _of(architecture: Architecture) -> int:
    """Channels of an encoder that is written down."""
    fields = dict(_flat(architecture.init_args))
    return next((cast(int, fields[name]) for name in sorted(_CHANNELS) if name in fields), 1)


def _computed(encoder: Encoder, before: Input, after: Input) -> str:
    """What becomes of positions that are made for the crop at hand, where the crop is another one."""
    if not isinstance(encoder, ViT) or before.size == after.size:
        return ""
    old, new = (_by(grid_of(given.size, encoder.patch)) for given in (before, after))
    if encoder.position_grid is not None:
        return f"learned positions of {_by(encoder.position_grid)} patches interpolated for crops of {new}"
    return f"{encoder.positions} positions computed for {new} patches, pretrained with {old}"


def _channels(channels: int, given: Input) -> str:
    return f"{channels} channels" + (f" ({given.context} slices each)" if given.context > 1 else "")


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
