"""Transformer blocks."""

import torch

from medssl.models.blocks import attended_values


def test_attention_on_a_processor_is_that_of_float32_also_under_autocast() -> None:
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = attended_values(query, key, value)
    weights = (query.float() @ key.float().mT / 2).softmax(dim=-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, weights @ value.float())
