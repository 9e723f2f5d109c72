"""Which patches are hidden from the encoder.

Random masking without replacement, as in He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021, section 3,
https://arxiv.org/abs/2111.06377.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views.streams import Streams


@dataclass(frozen=True)
class PatchMask:
    """A partition of the patches of each sample.

    Args:
        visible: (B, N_visible) indices of the patches that the encoder sees, ascending.
        hidden: (B, N_hidden) indices of the patches that are predicted, ascending.
    """

    visible: Tensor
    hidden: Tensor


def random_mask(patches: int, ratio: float, *, streams: Streams, device: torch.device | None = None) -> PatchMask:
    """Hide a fixed share of the patches of each sample, uniformly.

    Args:
        patches: N, patches a sample.
        ratio: Share hidden, between 0 and 1; at least one patch stays on either side.
        streams: Randomness of each sample, on the CPU so that masks are equal on every device.
        device: Where the indices are wanted.

    Raises:
        ConfigError: A ratio outside (0, 1), or fewer than two patches.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"mask_ratio must lie between 0 and 1, got {ratio}")
    if patches < 2:
        raise ConfigError(f"masking needs at least 2 patches a sample, found {patches}; use a larger crop or a smaller patch")
    num_hidden = min(max(round(patches * ratio), 1), patches - 1)
    order = streams.order(patches)
    hidden, visible = order[:, :num_hidden].sort(dim=1).values, order[:, num_hidden:].sort(dim=1).values
    return PatchMask(visible.to(device), hidden.to(device))
