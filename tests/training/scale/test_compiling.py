from pathlib import Path

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training.scale.compiling import compile_parts
from medssl.training.settings import Training
from medssl.views.batch import Batch
from medssl.views.streams import Streams


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"):
        compile_parts(ViT((4, 4), width=8, depth=1, heads=1), Training(compile=True))


def test_a_network_without_transformer_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="transformers only"):
        compile_parts(torch.nn.Linear(2, 2), Training(compile=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own tracing looks at it
def test_a_compiled_masked_autoencoder_has_the_loss_of_a_plain_one_and_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # a compilation that was cut off leaves torn files in the shared one
    objective = MAE(ViT((4, 4), width=16, depth=1, heads=2), decoder_width=16, decoder_depth=1, decoder_heads=2)
    images, names = torch.randn(2, 1, 16, 16), list(objective.state_dict())
    plain = objective(Batch.of(images, Streams.of(1, range(2)))).total
    compile_parts(objective, Training(compile=True))
    compiled = objective(Batch.of(images, Streams.of(1, range(2)))).total
    compiled.backward()
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert list(objective.state_dict()) == names
