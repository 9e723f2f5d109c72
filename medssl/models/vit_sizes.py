"""Vision transformers in the sizes of their papers, to be named in a configuration in place of `medssl.models.vit.ViT`.

What they return is a `ViT`, and a bundle records it as such, with all its numbers.
"""

from collections.abc import Sequence
from typing import Literal

from medssl.models.vit import Positions, ViT

_VIT = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_PRIMUS = {"S": (396, 12, 6), "B": (792, 12, 12), "M": (864, 16, 12), "L": (1056, 24, 16)}


def sized_vit(
    size: Literal["tiny", "small", "base", "large"],
    patch: Sequence[int],
    *,
    in_channels: int = 1,
    positions: Positions = "sincos",
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    registers: int = 0,
    mask_token: bool = False,
    checkpointing: bool = False,
) -> ViT:
    """A ViT in one of four sizes: 5, 21, 85 or 302 million parameters.

    Tiny and small: Touvron et al., "Training data-efficient image transformers", 2020, https://arxiv.org/abs/2012.12877, table 1; base and
    large: Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929, table 1.

    Args:
        size: Width, depth and heads.
        patch: Voxels of a patch along each axis; two numbers for slices, three for volumes.
        in_channels: C.
        positions: How a token knows its place.
        layer_scale: First value of a learned factor per channel on each update; None for none.
        drop_path: Share of samples without an update in training, at the last block.
        registers: Learned tokens without a patch.
        mask_token: A learned token stands for hidden patches.
        checkpointing: Compute activations twice instead of keeping them.
    """
    width, depth, heads = _VIT[size]
    return ViT(
        patch,
        in_channels=in_channels,
        width=width,
        depth=depth,
        heads=heads,
        positions=positions,
        layer_scale=layer_scale,
        drop_path=drop_path,
        registers=registers,
        mask_token=mask_token,
        checkpointing=checkpointing,
    )


def primus(
    size: Literal["S", "B", "M", "L"],
    *,
    patch: Sequence[int] = (8, 8, 8),
    in_channels: int = 1,
    drop_path: float = 0.2,
    mask_token: bool = False,
    checkpointing: bool = False,
) -> ViT:
    """A transformer for volumes with tokens of 8 x 8 x 8 voxels, rotary and absolute positions, SwiGLU and LayerScale.

    Wald et al., "Primus: Enforcing Attention Usage for 3D Medical Image Segmentation", 2025, https://arxiv.org/abs/2503.01835. Its absolute
    positions are learned for one crop; here they are sine-cosine, for crops of any size, and attention has no normalisation inside.

    Args:
        size: Width, depth and heads.
        patch: Voxels of a patch along each axis.
        in_channels: C.
        drop_path: Share of samples without an update in training, at the last block.
        mask_token: A learned token stands for hidden patches.
        checkpointing: Compute activations twice instead of keeping them.
    """
    width, depth, heads = _PRIMUS[size]
    return ViT(
        patch,
        in_channels=in_channels,
        width=width,
        depth=depth,
        heads=heads,
        positions="both",
        mlp="swiglu",
        layer_scale=0.1,
        drop_path=drop_path,
        mask_token=mask_token,
        checkpointing=checkpointing,
    )
