"""Several networks as one: the mean of their probabilities, such as of the folds of a cross-validation."""

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network

_EDGE = 1e-7  # probabilities of exactly 0 or 1 have no logit


class Ensemble(Network):
    """The mean of the probabilities of its members, as a logit; a bundle holds it like any network.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", 2017, section 2.4,
    https://arxiv.org/abs/1612.01474.

    Args:
        members: Networks of one task, dimension and number of channels, by name.

    Raises:
        ConfigError: No member, or members that differ in one of these.
    """

    def __init__(self, **members: Network) -> None:
        super().__init__()
        kinds = {(member.task, member.spatial_dims, member.in_channels, member.classes, member.bags) for member in members.values()}
        if len(kinds) != 1:
            raise ConfigError(f"an ensemble takes networks of one task, dimension and number of channels, got {sorted(kinds)}")
        (self.task, self.spatial_dims, self.in_channels, self.classes, self.bags), *_ = kinds
        self.outputs = next(iter(members.values())).outputs
        self.members = nn.ModuleDict(members)

    def architecture(self) -> Architecture:
        """The members' architectures, by name."""
        return Architecture.of(self, **{name: _network(member).architecture() for name, member in self.members.items()})

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> logits, of the shape that each member gives."""
        probability = torch.stack([self.outputs.probabilities(member(images)) for member in self.members.values()]).mean(dim=0)
        if self.outputs.names and self.outputs.exclusive:
            return probability.clamp(min=_EDGE).log()  # whose softmax they are
        return torch.logit(probability, eps=_EDGE)


def _network(member: nn.Module) -> Network:
    if not isinstance(member, Network):
        raise TypeError("a member of an ensemble is a lesion network")
    return member
