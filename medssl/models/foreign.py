"""Pretrained weights of others, put into our encoders by tested maps of their names, with a report of what found its place.

Files are safetensors, or torch checkpoints that hold tensors and plain values alone; a pickle that needs code is never run.
"""

import argparse
import logging
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medssl.errors import BundleError, ConfigError
from medssl.models.encoder import Encoder
from medssl.models.foreign_names import Kind, translated
from medssl.models.patches import resized_positions
from medssl.models.vit import ViT

logger = logging.getLogger(__name__)

_LEAST_SHARE = 0.99
_ENTRY = ("embed.weight", "position_table", "stem.conv.weight", "net.patch_embed.proj.weight")  # small, and nothing is right without them
_WRAPPERS = ("state_dict", "model", "network_weights", "model_state_dict")  # under which checkpoints keep their tensors
_PREFIX = re.compile(r"^(module|_orig_mod|model|backbone|vit)\.")


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file and of an encoder.

    Args:
        loaded: Names in the encoder that got weights of the file.
        missing: Names in the encoder that kept their own.
        unexpected: Names in the file that belong to an encoder and found no place; heads and decoders are not among them.
        reshaped: Names in the encoder whose weights have another shape in the file, for their layout, channels or positions.
        share: Elements that found their place, of all elements of the encoder and all unexpected ones, 0 to 1.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        return (
            f"{len(self.loaded)} tensors loaded ({100 * self.share:.1f} % of elements, {len(self.reshaped)} reshaped); "
            f"missing: {_some(self.missing)}; unexpected: {_some(self.unexpected)}"
        )


def load_foreign(encoder: Encoder, path: Path, kind: Kind, *, allow_partial: bool = False) -> LoadReport:
    """Put weights of others into an encoder; it stays as it was if they do not fit.

    Args:
        encoder: A `ViT` for `mae` and `monai_vit`, a `ResidualEncoder` for `nnunet`, a `MonaiEncoder` of SwinUNETR's `swinViT` for
            `monai_swin`.
        path: A file of safetensors or a torch checkpoint.
        kind: Whose names the file has: `mae` (facebookresearch/mae, He et al., 2021, and its descendants), `monai_vit` (MONAI's ViT and
            MaskedAutoEncoderViT), `monai_swin` (SwinUNETR, SwinViT), `nnunet` (residual-encoder U-Net of nnU-Net and nnssl).
        allow_partial: Accept less than 99 % of the elements, or a first layer or positions that do not fit.

    Raises:
        ConfigError: No such file, less than 99 % of the elements, or another first layer or positions.
        BundleError: A file that is damaged or needs code.
    """
    target, found = encoder.state_dict(), _named(read_checkpoint(path), kind)
    placed: dict[str, Tensor] = {}
    reshaped, unexpected = [], []
    for name, tensor in found.items():
        fitted = _fitted(encoder, name, tensor, target.get(name), kind)
        if fitted is None:
            unexpected.append(name)
            continue
        placed[name] = fitted
        reshaped.extend([name] if fitted.shape != tensor.shape else [])
    count = sum(tensor.numel() for tensor in placed.values())
    total = sum(tensor.numel() for tensor in target.values()) + sum(found[name].numel() for name in unexpected)
    missing = tuple(name for name in target if name not in placed)
    report = LoadReport(tuple(placed), missing, tuple(unexpected), tuple(reshaped), count / max(total, 1))
    _judge(report, path, allow_partial)
    encoder.load_state_dict({**target, **placed})
    logger.info("%s: %s", path.name, report)
    return report


def pretrained(encoder: Encoder, path: Path, kind: Kind, allow_partial: bool = False) -> Encoder:
    """An encoder with the weights of a file, to be named in a configuration in place of the encoder; see `load_foreign`."""
    load_foreign(encoder, path, kind, allow_partial=allow_partial)
    return encoder


def pretrained_vit(encoder: ViT, path: Path, kind: Literal["mae", "monai_vit"], allow_partial: bool = False) -> ViT:
    """A ViT with the weights of a file, to be named in a configuration in place of the ViT; see `load_foreign`."""
    load_foreign(encoder, path, kind, allow_partial=allow_partial)
    return encoder


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, whatever they are wrapped in; no code of the file is run.

    Raises:
        ConfigError: No such file.
        BundleError: Damaged, without tensors, or a pickle that needs code.
    """
    if not path.is_file():
        raise ConfigError(f"{path.name} is no file; give the checkpoint whose weights are wanted")
    try:
        content: object = load_file(path) if path.suffix == ".safetensors" else _load_plain(path)
    except pickle.UnpicklingError as error:
        raise BundleError(f"unsafe_checkpoint: {path.name} holds more than tensors and plain values; save its state_dict alone") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError(f"{path.name} cannot be read as weights; fetch it again") from error
    while isinstance(content, dict) and (inside := next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)):
        content = content[inside]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise BundleError(f"{path.name} holds no tensors by name; give a checkpoint with a state_dict")
    return tensors


def _load_plain(path: Path) -> object:
    scalar = np.float64(0).__reduce__()[0]
    types = [np.dtype, *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "b1"))]
    plain = [argparse.Namespace, *types, scalar, (scalar, "numpy.core.multiarray.scalar")]  # losses and arguments beside the weights
    with torch.serialization.safe_globals(plain):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True)


def _named(tensors: dict[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """The tensors of an encoder by our names, without class tokens in the table of positions."""
    named = {}
    for name, tensor in tensors.items():
        while _PREFIX.match(name):
            name = _PREFIX.sub("", name)
        ours = translated(name, kind)
        if ours is not None:
            named[ours] = tensor
    return _without_class_position(named) if {"position_table", "registers"} <= named.keys() else named


def _without_class_position(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """MAE keeps a position for its class token in front of the others: it is added to the token."""
    table, patches = named["position_table"], named["position_table"].shape[-2]
    if _side(patches, 2) or _side(patches, 3) or not _side(patches - 1, 2):
        return named
    return {**named, "position_table": table[:, 1:], "registers": named["registers"] + table[:, :1]}


def _fitted(encoder: Encoder, name: str, tensor: Tensor, target: Tensor | None, kind: Kind) -> Tensor | None:
    """A tensor in the shape and the layout of its target, or None where it does not fit."""
    if target is None:
        return None
    if name == "position_table" and isinstance(encoder, ViT) and encoder.position_grid is not None:
        tensor = _table(tensor, encoder.position_grid, kind)
    elif name == "registers":
        tensor = tensor.flatten(0, 1)
    elif name == "embed.weight" and tensor.ndim > 2:
        tensor = inflated(_turned(tensor, kind), encoder.in_channels).movedim(1, -1).flatten(1)  # (D, P * C)
    elif name == "net.patch_embed.proj.weight":
        tensor = inflated(tensor, target.shape[1])
    elif kind == "nnunet" and tensor.ndim > 2:
        tensor = inflated(_turned(tensor, kind), target.shape[1] if name == "stem.conv.weight" else tensor.shape[1])
    return tensor.to(target.dtype) if tensor.shape == target.shape else None


def _turned(weight: Tensor, kind: Kind) -> Tensor:
    """Kernels (O, C, *K) turned from the axes of their authors to ours: I to the left, J upwards on the screen, K to the head.

    A picture has rows downwards, then columns to the right; SimpleITK, and so nnU-Net, has K, J, I; MONAI has ours. Mirroring is undone
    where the kernels do not overlap, which makes the features equal; nnU-Net's stay mirrored, as in its augmentation.
    """
    if kind == "mae" and weight.ndim == 4:
        return weight.mT.flip(-1, -2)
    return weight.permute(0, 1, *range(weight.ndim - 1, 1, -1)) if kind == "nnunet" else weight


def inflated(weight: Tensor, channels: int) -> Tensor:
    """Weights (O, I, *K) of a first convolution for another number of channels: equal input in all of them gives what it gave before."""
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(dim=1, keepdim=True) / channels).expand(-1, channels, *weight.shape[2:])


def _table(table: Tensor, grid: Sequence[int], kind: Kind) -> Tensor:
    """Positions (1, N, D) of others for our grid (N, D), turned as the patches are; from a square or cube where the number differs."""
    patches, width = table.shape[-2:]
    turned = kind == "mae" and len(grid) == 2
    known = tuple(grid)[::-1] if turned else tuple(grid)
    if patches != math.prod(grid):
        known = (_side(patches, len(grid)),) * len(grid)
    if math.prod(known) != patches:
        return table
    places = table.reshape(*known, width)
    if turned:
        places = places.transpose(0, 1).flip(0, 1)
    return resized_positions(places.reshape(patches, width), places.shape[:-1], grid)


def _side(patches: int, axes: int) -> int:
    """Patches along each axis of a square or cubic grid; 0 where it is none."""
    side = round(patches ** (1 / axes))
    return side if side**axes == patches else 0


def _judge(report: LoadReport, path: Path, allow_partial: bool) -> None:
    lost = [name for name in _ENTRY if name in (*report.missing, *report.unexpected)]
    if allow_partial or not (lost or report.share < _LEAST_SHARE):
        return
    if lost == ["position_table"] and lost[0] in report.unexpected:
        raise ConfigError(f"{path.name} has positions that this encoder cannot hold; give it positions: learned and position_grid")
    raise ConfigError(f"{path.name} fits this encoder in part only: {report}; change the encoder, or set allow_partial")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
