"""DINO: a student sees small and large crops and predicts what its teacher, a running mean of itself, makes of the large ones.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, https://arxiv.org/abs/2104.14294. Sinkhorn: Caron et al.,
"SwAV", 2020, https://arxiv.org/abs/2006.09882. KoLeo: Sablayrolles et al., 2018, https://arxiv.org/abs/1806.03198, as in DINOv2, Oquab et
al., 2023, https://arxiv.org/abs/2304.07193.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import Norm, PrototypeHead
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.pairs import STRONG, by_view, float32, strangers, two_views
from medssl.objectives.processes import gathered, mean_of, rank
from medssl.objectives.teacher import Teacher, checked_momentum, cosine_momentum
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch, Positives
from medssl.views.windows import window


@dataclass(frozen=True)
class Sharpening:
    """How the teacher's likenesses become targets: sharp ones keep prototypes from being all alike, balance from being one.

    The paper's teacher has `relative` off, 0.04 rising to 0.07, and `centre`. The features of an untrained transformer are so alike (the
    cosines of samples deviate by 0.02) that these make all targets alike in short runs, from which nothing is learned.

    Args:
        student: Temperature of the student.
        first: Temperature of the teacher when the run begins; lower it where training collapses to equal targets.
        last: Temperature of the teacher after warm-up.
        warmup: Share of the run in which it rises, linearly.
        relative: The teacher's temperature is in units of the deviation of likenesses between the samples of the batch.
        balance: `centre` takes a running mean of the likenesses away (section 3.1 of DINO), `sinkhorn` shares the batch out evenly among
            the prototypes (section 3.1 of SwAV), `both` does one after the other.
        centre_momentum: Share of the running mean that a step keeps.

    Raises:
        ConfigError: A temperature of 0 or less, or a share outside [0, 1].
    """

    student: float = 0.1
    first: float = 0.25
    last: float = 0.45
    warmup: float = 0.3
    relative: bool = True
    balance: Literal["centre", "sinkhorn", "both"] = "sinkhorn"
    centre_momentum: float = 0.9

    def __post_init__(self) -> None:
        if min(self.student, self.first, self.last) <= 0:
            raise ConfigError(f"temperatures must be > 0, got student {self.student}, first {self.first} and last {self.last}")
        if not 0 <= self.warmup <= 1 or not 0 <= self.centre_momentum <= 1:
            raise ConfigError(f"warmup and centre_momentum must lie in [0, 1], got {self.warmup} and {self.centre_momentum}")

    def temperature(self, progress: Tensor) -> Tensor:
        """() temperature of the teacher at a share of the run (), where that is."""
        risen = (progress / self.warmup).clamp(max=1) if self.warmup else torch.ones_like(progress)
        return self.first + (self.last - self.first) * risen


@dataclass(frozen=True)
class LocalCrops:
    """Small crops, cut from the large ones without resampling, so that structures keep their size.

    Args:
        count: How many a sample, 0 for none; 8 to 10 in the paper.
        share: Their edge as a share of the large crop's, rounded to the encoder's stride.

    Raises:
        ConfigError: A value out of range.
    """

    count: int = 4
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.count < 0 or not 0 < self.share <= 1:
            raise ConfigError(f"count must be >= 0 and share in (0, 1], got {self.count} and {self.share}")

    def size(self, large: torch.Size, stride: tuple[int, ...]) -> list[int]:
        """Voxels of a small crop along each axis, multiples of the stride."""
        return [step * max(round(self.share * length / step), 1) for length, step in zip(large, stride, strict=True)]


class DINO(Objective):
    """Self-distillation without labels.

    Args:
        encoder: The student; its mean-pooled features are compared with prototypes. It must take crops of several sizes.
        prototypes: K; 65536 in the paper, far fewer for small data sets.
        hidden: Width of the head's projector; 2048 in the paper.
        bottleneck: Dimensions in which features meet prototypes; 256 in the paper.
        norm: What normalises inside the head.
        momentum: Share of the teacher that a step keeps at first; rises to 1. 0.996 in the paper, for runs of 100 000 steps and more.
        sharpening: How targets are made.
        local_crops: Small crops, for the student alone.
        frozen: Share of the run in which prototypes stay as drawn; one epoch in the paper.
        koleo: Weight of a loss that spreads features of different patients; 0.1 in DINOv2, 0: none.
        views: How views vary.
        positives: Which crops the two large views are of.

    Raises:
        ConfigError: A value out of range.
    """

    centre: Tensor
    progress: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        prototypes: int = 1024,
        hidden: int = 512,
        bottleneck: int = 128,
        norm: Norm = "none",
        momentum: float = 0.99,
        sharpening: Sharpening | None = None,
        local_crops: LocalCrops | None = None,
        frozen: float = 0.02,
        koleo: float = 0.0,
        views: Augment = STRONG,
        positives: Positives = "same",
    ) -> None:
        super().__init__(encoder)
        if prototypes < 2 or not 0 <= frozen <= 1 or koleo < 0:
            raise ConfigError(f"prototypes must be >= 2, frozen in [0, 1], koleo >= 0, got {prototypes}, {frozen} and {koleo}")
        self.positives, self.frozen, self.koleo = positives, frozen, koleo
        self.momentum = checked_momentum(momentum)
        self.sharpening, self.local_crops, self.views = sharpening or Sharpening(), local_crops or LocalCrops(), views
        self.head = PrototypeHead(encoder.width, hidden=hidden, bottleneck=bottleneck, prototypes=prototypes, norm=norm)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("progress", torch.zeros(()))

    def forward(self, batch: Batch) -> Loss:
        """Cross entropy of the student's prototypes under the teacher's, over all pairs of different crops."""
        large = two_views(batch, self.views)
        targets = self.targets(by_view(self.taught, large))
        features = by_view(self.encoder.pooled, large)
        cosines = by_view(self.likeness, features)
        if self.local_crops.count:
            small = by_view(self.encoder.pooled, self.small_views(batch))
            cosines = torch.cat([cosines, by_view(self.likeness, small)], dim=1)
        loss = distillation(targets, cosines / self.sharpening.student)
        terms = {"dino": loss.detach(), **entropies(targets)}
        if self.koleo:
            spread = koleo(gathered(features), gathered(batch.patient))
            loss, terms["koleo"] = loss + self.koleo * spread, spread.detach()
        return Loss(loss, terms)

    @torch.no_grad()
    def check_local_crops(self, size: Sequence[int]) -> None:
        """Whether the encoder takes the small crops of crops of a size; it is asked with an empty one.

        Raises:
            ConfigError: It does not.
        """
        small, training = self.local_crops.size(torch.Size(size), self.encoder.stride), self.encoder.training
        try:
            self.encoder.eval().pooled(torch.zeros(1, self.encoder.in_channels, *small))
        except ConfigError as error:
            raise ConfigError(
                f"local_crops.share {self.local_crops.share} of crops {list(size)} gives small crops {small}, which the encoder "
                f"does not take ({error}); give a larger share or larger crops, or set local_crops.count to 0"
            ) from error
        finally:
            self.encoder.train(training)

    def small_views(self, batch: Batch) -> Tensor:
        """(B, count, C, *s): random windows of the large crops in turn, varied."""
        views = []
        for number in range(self.local_crops.count):
            crop = batch.crop(number % 2)
            part = window(crop, self.local_crops.size(crop.shape[2:], self.encoder.stride), streams=batch.streams)
            views.append(augment(part, self.views, streams=batch.streams).images)
        return torch.stack(views, dim=1)

    def likeness(self, features: Tensor) -> Tensor:
        """Features (B, D) of the student -> (B, K)."""
        cosines: Tensor = self.head(features, frozen=self.progress < self.frozen)
        return cosines

    @torch.no_grad()
    def taught(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K) of the teacher."""
        cosines: Tensor = self.teacher_head.module(self.teacher.module.pooled(images))
        return cosines

    @torch.no_grad()
    def targets(self, cosines: Tensor) -> Tensor:
        """The teacher's likenesses (B, 2, K) -> what the student learns, (B, 2, K) summing to 1; the running mean moves on in training."""
        whole, centre = gathered(cosines), self.centre.clone()
        if self.training:
            self.centre.lerp_(whole.mean(dim=(0, 1)), 1 - self.sharpening.centre_momentum)
        unit = whole.flatten(0, 1).std(dim=0).mean().clamp(min=_TINY) if self.sharpening.relative else 1.0
        temperature = self.sharpening.temperature(self.progress) * unit
        logits = (whole if self.sharpening.balance == "sinkhorn" else whole - centre) / temperature
        shares = logits.softmax(dim=2) if self.sharpening.balance == "centre" else sinkhorn(logits.flatten(0, 1)).view_as(logits)
        return shares[rank() * len(cosines) :][: len(cosines)]

    def after_step(self, progress: float) -> None:
        """The teacher follows, temperatures and prototypes know how far the run is."""
        self.progress.fill_(progress)
        momentum = cosine_momentum(self.momentum, progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)


def distillation(targets: Tensor, logits: Tensor) -> Tensor:
    """Cross entropy, mean over samples of all processes and pairs of different crops (equation 3 of DINO), in float32.

    Args:
        targets: (B, T, K) of large crops, summing to 1.
        logits: (B, V, K) of all crops; the first T are of the same crops as the targets.
    """
    with float32(logits):
        cross = -torch.einsum("btk,bvk->btv", targets.float(), logits.float().log_softmax(dim=2))
    different = 1 - torch.eye(targets.shape[1], logits.shape[1], device=logits.device)
    return mean_of((cross * different).sum(), different.sum() * len(logits))


def sinkhorn(logits: Tensor, rounds: int = 3) -> Tensor:
    """Share rows out evenly among prototypes: (N, K) logits -> (N, K) of which rows sum to 1, columns to about N / K."""
    for _ in range(rounds):
        logits = logits - logits.logsumexp(dim=0, keepdim=True)
        logits = logits - logits.logsumexp(dim=1, keepdim=True)
    return logits.exp()


def koleo(features: Tensor, patient: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest feature of another patient, mean over views; 0 where there is no other patient.

    Args:
        features: (B, V, D), compared on the unit sphere within each view.
        patient: (B,).
    """
    points = F.normalize(features.float(), dim=2).transpose(0, 1)  # (V, B, D)
    others = strangers(patient, features)
    rows = others.any(dim=1)
    with torch.no_grad(), float32(features):
        nearest = (points @ points.transpose(1, 2)).masked_fill(~others, float("-inf")).argmax(dim=2)  # (V, B)
    neighbours = points.gather(1, nearest[:, :, None].expand_as(points))
    distance = F.pairwise_distance(points, neighbours, eps=_TINY)  # (V, B)
    return -((distance + _TINY).log() * rows).sum() / (len(points) * rows.sum()).clamp(min=1)


def entropies(targets: Tensor) -> dict[str, Tensor]:
    """Signs of collapse in targets (B, T, K), in nats: `target_entropy` near log K: all targets alike; `used_entropy` near 0: all one."""
    used = targets.mean(dim=(0, 1))
    return {"target_entropy": torch.special.entr(targets).sum(dim=2).mean(), "used_entropy": torch.special.entr(used).sum()}


_TINY = 1e-8
