"""What every trained module does alike."""

from pathlib import Path

import pytest
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from medssl.data.unlabelled import Unlabelled
from medssl.training.launch import launch_pretrain
from medssl.training.pretraining.pretrainer import Pretrainer
from tests.training.scale.test_scale import EXAMPLE, config


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steep_gradients_are_clipped(precision: str, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    loss_of, update = Pretrainer.training_step, AdamW.step

    def steep(module: Pretrainer, batch: Unlabelled, batch_idx: int) -> Tensor:
        return loss_of(module, batch, batch_idx) * 1e4

    def seen(optimizer: AdamW, closure=None) -> object:  # noqa: ANN001
        def clipped() -> object:
            loss = closure()
            norms.append(get_total_norm([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]).item())
            return loss

        return update(optimizer, clipped)

    monkeypatch.setattr(Pretrainer, "training_step", steep)
    monkeypatch.setattr(AdamW, "step", seen)
    monkeypatch.setattr("medssl.training.run.estimate", lambda *_, **__: EXAMPLE)
    launch_pretrain([*config(store), "--training.precision", precision, "--training.clip", "0.5", "--out", str(tmp_path / "run")])
    assert norms and max(norms) == pytest.approx(0.5, rel=1e-2)
