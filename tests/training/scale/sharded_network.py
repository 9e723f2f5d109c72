"""One step of a network that is spread over two processes: `sharded_network.py RANK FOLDER`."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT
from medssl.objectives.hybrid import Hybrid
from medssl.objectives.mae import MAE
from medssl.objectives.moco import MoCo
from medssl.objectives.objective import Objective
from medssl.training.scale.sharding import UNITS, clipped, followed
from medssl.views.batch import Batch
from medssl.views.streams import Streams

SAMPLES, LARGEST = 4, 0.01  # far below the norm of the gradient, so that clipping decides the step


def vit() -> ViT:
    return ViT((4, 4), width=16, depth=2, heads=2)


OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "mae": lambda: MAE(vit(), decoder_width=8, decoder_depth=1, decoder_heads=2),
    "mae_cross": lambda: MAE(vit(), decoder_width=8, decoder_depth=1, decoder_heads=2, decoder="cross"),
    "moco": lambda: MoCo(vit(), hidden=16, projection=8, momentum=0.5),
    "moco_convolutions": lambda: MoCo(ResidualEncoder(spatial_dims=2, stage_widths=(4, 8), stage_blocks=(1, 1)), hidden=16, projection=8),
    "hybrid": lambda: Hybrid(vit(), decoder_width=8, decoder_depth=1, hidden=16, projection=8, momentum=0.5),
}


class Step(nn.Module):
    """The loss of samples, by their numbers, as Lightning's module gives it."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, numbers: Tensor) -> Tensor:
        images = torch.randn(SAMPLES, 1, 16, 16, generator=torch.Generator().manual_seed(1))[numbers]
        batch = Batch.of(images, Streams.of(0, numbers.tolist()))
        total: Tensor = self.objective(Batch(**{**vars(batch), "patient": numbers})).total
        return total


def stepped(name: str, numbers: range, spread: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
    """The loss, and the weights after a clipped step that a teacher has followed."""
    torch.manual_seed(0)
    step = Step(OBJECTIVES[name]())
    model = spread(step)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], 10.0)
    loss = model(torch.tensor(numbers))
    loss.backward()
    if not clipped(model, LARGEST):
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST)
    optimizer.step()
    with followed(model):
        step.objective.after_step(0.0)
    return {"loss": loss.detach(), **whole(model)}


def whole(model: nn.Module) -> dict[str, Tensor]:
    """All weights under their own names."""
    if not isinstance(model, FullyShardedDataParallel):
        return dict(model.state_dict())
    with FullyShardedDataParallel.summon_full_params(model):
        return {name.replace("_fsdp_wrapped_module.", ""): tensor.clone() for name, tensor in model.state_dict().items()}


def main(rank: int, folder: Path) -> None:
    """Save what each objective has become, and how many parts were gathered on their own."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    spread = partial(FullyShardedDataParallel, auto_wrap_policy=UNITS, use_orig_params=True, device_id=torch.device("cpu"))
    half = SAMPLES // 2
    for name in OBJECTIVES:
        torch.save(stepped(name, range(half * rank, half * (rank + 1)), spread), folder / f"{name}_{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
