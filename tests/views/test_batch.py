import torch

from medssl.views.batch import Batch
from medssl.views.streams import Streams


def test_what_is_known_of_crops_lies_where_the_crops_are() -> None:
    batch = Batch.of(torch.empty(2, 1, 4, 4, device="meta"), Streams.of(0, range(2)))
    assert {part.device.type for part in (batch.patient, batch.corner, batch.level, batch.present, batch.inside(0))} == {"meta"}
