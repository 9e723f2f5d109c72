import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training.settings import Training, matrices


def whole() -> nn.Module:
    encoder = ViT((4, 4), width=8, depth=1, heads=1, positions="learned", position_grid=(4, 4), registers=1, mask_token=True)
    return MAE(encoder, decoder_width=8, decoder_depth=1, decoder_heads=1)


def test_weight_decay_is_of_matrices_and_neither_of_tokens_nor_of_positions() -> None:
    module = whole()
    free = {name for name, parameter in module.named_parameters() if parameter.ndim > 1} - matrices(module)
    assert free == {"encoder.mask_token", "encoder.registers", "encoder.position_table", "decoder.mask_token"}


def test_what_does_not_decay_stays_where_no_gradient_moves_it() -> None:
    module = whole()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer, _ = Training(learning_rate=0.1, warmup=0.0).optimizer(module, matrices(module))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in module.named_parameters() if not parameter.equal(before[name])}
    assert moved <= matrices(module)
    assert "encoder.embed.weight" in moved


@pytest.mark.parametrize(
    ("name", "value"), [("betas", (2.0, 3.0)), ("betas", (0.9, 1.0)), ("encoder_rate", -1.0), ("weight_decay", -1.0), ("clip", -1.0)]
)
def test_a_number_of_the_optimiser_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Training(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("computed", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch, computed: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computed)
    assert Training().resolved_precision == precision
