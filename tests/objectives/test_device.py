"""Masked methods on a device without values: whoever asks it for a number fails, as a GPU would make the host wait."""

import pytest
import torch

from medssl.models.vit import ViT
from medssl.views.batch import Batch
from medssl.views.streams import Streams
from tests.objectives.sharded_step import METHODS


@pytest.mark.parametrize("method", ["mae", "simmim", "spark"])
def test_a_step_of_a_masked_method_reads_nothing_back(method: str) -> None:
    objective = METHODS[method](ViT((4, 4), width=24, depth=1, heads=2)).to("meta")
    images = torch.empty(3, 1, 16, 16, device="meta")
    total = objective(Batch.of(images, Streams.of(0, range(3)))).total
    total.backward()
    assert (total.device.type, total.shape) == ("meta", ())
