"""What the channels of a network mean: probabilities, suspicion, classes."""

import pytest
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.inference import Window, channel_probabilities, probabilities
from medssl.models.outputs import Outputs

BREAST = Outputs(("normal", "benign", "malignant"), positive=("benign", "malignant"))
FINDINGS = Outputs(("nodule", "effusion"), positive=("nodule", "effusion"), exclusive=False)
TUMOUR = Outputs(("oedema", "core"), positive=("core",), background=True)


class Channels(Network):
    """Gives its image, once as it is and twice reversed in sign, as three channels."""

    spatial_dims, in_channels = 2, 1

    def __init__(self, task: str, outputs: Outputs, *, bags: bool = False) -> None:
        super().__init__()
        self.task, self.outputs, self.bags = task, outputs, bags  # type: ignore[assignment]

    def architecture(self) -> Architecture:
        return Architecture.of(self)

    def forward(self, images: Tensor) -> Tensor:
        if self.bags:
            images = images.flatten(1, 2)
        found = torch.cat([images[:, :1], -images[:, :1], -2 * images[:, :1]], dim=1)
        return found if self.task == "segmentation" else found.flatten(2).mean(dim=2)


def test_classes_that_exclude_each_other_sum_to_1() -> None:
    torch.testing.assert_close(BREAST.probabilities(torch.randn(4, 3)).sum(dim=1), torch.ones(4))


def test_suspicion_is_the_sum_of_exclusive_positive_classes() -> None:
    torch.testing.assert_close(BREAST.suspicion(torch.tensor([[0.5], [0.2], [0.3]])), torch.tensor([0.5]))


def test_suspicion_is_the_highest_of_several_labels() -> None:
    torch.testing.assert_close(FINDINGS.suspicion(torch.tensor([[0.4], [0.7]])), torch.tensor([0.7]))


def test_one_logit_is_its_own_suspicion() -> None:
    torch.testing.assert_close(Outputs().suspicion(Outputs().probabilities(torch.zeros(1, 1, 2))[0]), torch.full((2,), 0.5))


def test_the_background_is_no_class() -> None:
    assert (TUMOUR.channels, BREAST.channels, Outputs().channels) == (3, 3, 1)
    assert TUMOUR.of_classes(torch.arange(3)).tolist() == [1, 2]
    assert Outputs().of_classes(torch.arange(1)).tolist() == []


def test_the_likeliest_positive_class_and_the_likeliest_of_the_rest() -> None:
    positive, others = TUMOUR.likeliest(torch.tensor([[0.1, 0.6], [0.6, 0.3], [0.3, 0.1]]))
    assert (positive.tolist(), others.tolist()) == ([2, 2], [1, 0])


def test_the_map_of_classes_lies_where_the_scan_lies_and_is_background_outside() -> None:
    image = torch.zeros(1, 40, 30, 6)
    image[:, 12:22, 5:15, 2:4] = torch.rand(1, 10, 10, 2) + 1
    found = channel_probabilities(Channels("segmentation", TUMOUR), image, Window((8, 8)))
    assert found.shape == (3, 40, 30, 6)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(40, 30, 6))
    assert found[:, 0, 0, 0].tolist() == [1, 0, 0]
    one = image[0, 15, 8, 3]
    torch.testing.assert_close(found[:, 15, 8, 3], torch.stack([one, -one, -2 * one]).softmax(dim=0), atol=1e-4, rtol=1e-4)


def test_a_classifier_of_slices_gives_every_class_of_every_slice() -> None:
    found = channel_probabilities(Channels("classification", BREAST), torch.randn(1, 8, 8, 5), Window((8, 8)))
    assert found.shape == (3, 5)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(5))


def test_a_network_of_bags_gives_one_answer_for_a_scan() -> None:
    assert probabilities(Channels("classification", BREAST, bags=True), torch.randn(1, 8, 8, 5), Window((8, 8))).shape == (1,)


def test_channels_that_do_not_fit_the_classes_are_named() -> None:
    with pytest.raises(ConfigError, match="gives 3 channels, its classes need 2"):
        probabilities(Channels("classification", FINDINGS), torch.randn(1, 8, 8, 5), Window((8, 8)))
