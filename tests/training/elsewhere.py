"""One step of every method and of every kind of network, on the processor and on another device: `elsewhere.py FILE`."""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.models.architecture import Network
from medssl.models.decoder import ViTSegmenter
from medssl.models.detection import detections
from medssl.models.detector import CentreDetector
from medssl.models.ensemble import Ensemble
from medssl.models.heads import AttentionClassifier, Classifier
from medssl.models.inference import Window, channel_probabilities
from medssl.models.linear import LinearSegmenter
from medssl.models.lora import add_adapters
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.monai_network import MonaiNetwork
from medssl.models.neighbours import Neighbours
from medssl.models.outputs import Outputs
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.residual_unet import ResidualUNet
from medssl.models.unet import PyramidUNet
from medssl.models.vit import ViT
from medssl.training.finetuning.finetune import MODULES
from medssl.training.losses import Focal
from medssl.training.settings import Training
from medssl.views.augment import Augment
from medssl.views.streams import Streams
from tests.device import Device, brought, register
from tests.objectives.sharded_step import METHODS, batch

VIEWS = Augment(area=0.8, noise=0.2, blur=0.5, bias=0.3, coarse=0.5, gamma=0.2, histogram=0.5, cutout=0.5)
SIDE = 16


def vit(dims: int = 2, **options: Any) -> ViT:  # noqa: ANN401
    return ViT((4,) * dims, width=24, depth=2, heads=2, **options)


def residual(dims: int = 2) -> ResidualEncoder:
    return ResidualEncoder(spatial_dims=dims, stage_widths=(4, 8), stage_blocks=(1, 1))


def adapted() -> Network:
    network = ViTSegmenter(vit(), width=4)
    add_adapters(network.encoder, rank=2, alpha=4, generator=torch.Generator().manual_seed(0))
    return network


NETWORKS: Mapping[str, Callable[[], Network]] = {
    "segmenter": lambda: ViTSegmenter(vit(positions="learned", position_grid=(3, 3)), width=4),
    "segmenter of volumes": lambda: ViTSegmenter(vit(3), width=4),
    "adapted segmenter": adapted,
    "classifier": lambda: Classifier(vit(positions="rotary", registers=2, mlp="swiglu", layer_scale=0.1, checkpointing=True), classes=3),
    "classifier of bags": lambda: AttentionClassifier(vit(positions="both"), hidden=8),
    "detector": lambda: CentreDetector(residual(3), width=8),
    "deep supervision": lambda: PyramidUNet(residual(), classes=3, deep_supervision=True),
    "linear probe": lambda: LinearSegmenter(residual(3), classes=3),
    "neighbours": lambda: Neighbours(vit(), task="segmentation", size=10),
    "ensemble": lambda: Ensemble(one=ResidualUNet(widths=(4, 8)), two=ResidualUNet(widths=(4, 8))),
    "network of MONAI": lambda: MonaiNetwork("monai.networks.nets.SegResNet", {"init_filters": 8}, spatial_dims=2),
    "encoder of MONAI": lambda: Classifier(
        MonaiEncoder("monai.networks.nets.SegResNet", {"spatial_dims": 2, "init_filters": 8}, crop=[32, 32], features="encode")
    ),
}


def moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401
    return value.to(device) if isinstance(value, Tensor) else value


def objective_step(method: str, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor], None]:
    """A method and its loss."""
    objective = METHODS[method](ViT((4, 4), width=24, depth=1, heads=2, mask_token=True)).to(device)

    def loss() -> Tensor:
        samples = batch(range(6))
        return objective(replace(samples, **{part.name: moved(getattr(samples, part.name), device) for part in fields(samples)})).total

    return objective, loss, None


def network_step(kind: str, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor], Callable[[], list[float]]]:
    """A network, its loss, and what it says of a scan."""
    network, generator = NETWORKS[kind](), torch.Generator().manual_seed(1)
    side = 32 if "MONAI" in kind else SIDE
    names = tuple("abc"[: network.classes - (network.task == "segmentation")]) if network.classes > 1 else ()
    network.outputs = Outputs(names, names[:1], background=network.task == "segmentation" and bool(names))
    loss = None if network.task == "detection" else Focal(smoothing=0.1)
    weights = None if loss is None else torch.tensor([[1.0] * network.classes, [2.0] * network.classes])
    module = MODULES[network.task](network, Training(), views=VIEWS, seed=0, loss=loss, weights=weights).to(device)
    module.log = lambda *_, **__: None
    size = (side,) * network.spatial_dims
    image = torch.randn(3, *[4] * network.bags, 1, *size, generator=generator)
    lesion = torch.zeros(3, 1, *size, dtype=torch.uint8)
    lesion[:, :, 4:9, 4:9] = 1
    samples = {"image": image.to(device), "lesion": lesion.to(device), "label": torch.tensor([0, 1, -1], device=device)}
    scan = torch.randn(1, side + 4, side + 8, 4 if network.spatial_dims == 2 else side + 2, generator=generator).to(device)

    @torch.no_grad()
    def said() -> list[float]:
        window, looking = Window(size, flips=(0, 1), batch=4), network.eval()
        if network.task == "detection":
            return [value for box in detections.__wrapped__(looking, scan, window)[:3] for value in box.centre]
        return channel_probabilities.__wrapped__(looking, scan, window).flatten().tolist()  # the device knows no inference mode

    return module, lambda: module.training_step({**samples, "number": torch.arange(3)}, 0), said


def stepped(make: Callable[[torch.device], Any], device: torch.device, *, rounded: bool = False) -> dict[str, Any]:
    """The loss of a second step, its gradients, what was waited for in its forward pass, and what is said of a scan."""
    torch.manual_seed(0)
    with Device() as found:
        module, loss, said = make(device)
        loss()  # positions are made once
        module.zero_grad()
        found.waits.clear()
        torch.manual_seed(0)
        with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
            total = loss()
        waits = list(found.waits)
        if total.requires_grad:
            total.backward()
        scan = said() if said and not rounded else []
        gradient = [torch.zeros(1), *(brought(part.grad).flatten() for part in module.parameters() if part.grad is not None)]
        return {
            "loss": float(total.detach()),
            "gradient": torch.cat(gradient),
            "waits": waits,
            "scan": scan,
        }


def compared(make: Callable[[torch.device], Any], device: torch.device) -> dict[str, Any]:
    """How far the device is from the processor."""
    try:
        here, there, rounded = stepped(make, torch.device("cpu")), stepped(make, device), stepped(make, device, rounded=True)
    except Exception:  # noqa: BLE001  # whatever a device refuses is what is looked for
        return {"error": traceback.format_exc()[-2000:]}
    return {
        "error": "",
        "loss": abs(there["loss"] - here["loss"]) / abs(here["loss"]),
        "gradient": float((there["gradient"] - here["gradient"]).norm() / here["gradient"].norm().clamp(min=1e-12)),
        "scan": max((abs(one - other) for one, other in zip(here["scan"], there["scan"], strict=True)), default=0.0),
        "rounded": abs(rounded["loss"] - here["loss"]) / abs(here["loss"]),
        "waits": there["waits"],
    }


def main(path: Path) -> None:
    """Compare everything and write it down."""
    device, drawn = register(), Streams.normal
    Streams.normal = lambda streams, *shape, device=None: drawn(streams, *shape).to(device, non_blocking=True)  # it has no generator
    steps = {**{name: partial(objective_step, name) for name in METHODS}, **{name: partial(network_step, name) for name in NETWORKS}}
    path.write_text(json.dumps({name: compared(make, device) for name, make in steps.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
