"""Whether a network takes crops of a size: it is asked once, on an empty crop, before a run starts."""

from collections.abc import Sequence

import torch

from medssl.errors import ConfigError
from medssl.models.architecture import Network
from medssl.models.monai_class import one_line

_MULTIPLES = (2, 4, 8, 16, 32, 64)


def check_crop(network: Network, size: Sequence[int]) -> None:
    """Whether a network takes crops of a size.

    Args:
        network: Left as it was.
        size: Voxels along each axis.

    Raises:
        ConfigError: It does not; the message names the next size that it takes.
    """
    reason = _refusal(network, size)
    if reason:
        raise ConfigError(f"the network does not take crops {list(size)}{_instead(network, size)}: {reason}")


def _instead(network: Network, size: Sequence[int]) -> str:
    for multiple in _MULTIPLES:
        larger = [-(-length // multiple) * multiple for length in size]
        if larger != list(size) and not _refusal(network, larger):
            return f", but {larger}"
    return ""


@torch.no_grad()
def _refusal(network: Network, size: Sequence[int]) -> str:
    """Why an empty crop is refused; empty where it is not."""
    training, parameter = network.training, next(network.parameters())
    shape = (1, 1, network.in_channels, *size) if network.bags else (1, network.in_channels, *size)
    try:
        network.eval()(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device))
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, ConfigError) as error:
        return one_line(error)
    finally:
        network.train(training)
    return ""
