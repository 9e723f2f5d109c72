"""The scripts that a user of MONAI would write for 2D images, trained for a given processor time: what medssl is compared with."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DenseNet121
from monai.transforms import Compose, RandAffined, RandFlipd, RandScaleIntensityd, RandShiftIntensityd
from numpy.typing import NDArray
from torch import Tensor, nn

from medssl.data.dataset import Case
from medssl.data.store import decode

BATCH, RATE = 16, 3e-4

Pictures = Tensor
Sample = dict[str, Tensor]


def pictures_of(cases: Sequence[Case]) -> Pictures:
    """(N, 1, I, J) prepared images of one size."""
    return torch.stack([torch.from_numpy(decode(case.image)[:, :, :, 0].astype(np.float32)) for case in cases])


def masks_of(cases: Sequence[Case]) -> Pictures:
    """(N, 1, I, J) lesions, 0 where there is none."""
    shape = cases[0].shape[1:3]
    masks = [np.zeros((1, *shape)) if case.lesion is None else case.lesion[:, :, :, 0] for case in cases]
    return torch.from_numpy(np.stack(masks).astype(np.float32))


def classifier(pictures: Pictures, labels: NDArray[np.intp], classes: int, seconds: float) -> Callable[[Pictures], NDArray[np.float64]]:
    """DenseNet121 from scratch with cross entropy; gives probabilities (N, classes)."""
    torch.manual_seed(0)
    network, loss_of = DenseNet121(2, 1, classes), nn.CrossEntropyLoss(label_smoothing=0.1)
    answers = torch.from_numpy(labels)
    trained(network, lambda rows, images: loss_of(network(images["image"]), answers[rows]), {"image": pictures}, seconds)
    return lambda asked: np.concatenate([mirrored(network, part).softmax(dim=1).double().numpy() for part in torch.split(asked, BATCH)])


def segmenter(pictures: Pictures, masks: Pictures, seconds: float) -> Callable[[Pictures], NDArray[np.bool_]]:
    """A U-Net from scratch with Dice + cross entropy; gives masks (N, 1, I, J)."""
    torch.manual_seed(0)
    network, loss_of = BasicUNet(2, 1, 1, features=(16, 32, 64, 128, 256, 16)), DiceCELoss(sigmoid=True, batch=True)
    trained(network, lambda _, images: loss_of(network(images["image"]), images["lesion"]), {"image": pictures, "lesion": masks}, seconds)
    return lambda asked: np.concatenate([(mirrored(network, part, back=True) >= 0).numpy() for part in torch.split(asked, BATCH)])


def mirrored(network: nn.Module, pictures: Pictures, *, back: bool = False) -> Tensor:
    """Logits, the mean of those of a picture and of its mirror image, as medssl takes it; `back` mirrors the answer again."""
    other: Tensor = network(pictures.flip(2))
    logits: Tensor = network(pictures)
    return (logits + (other.flip(2) if back else other)) / 2


def trained(network: nn.Module, loss_of: Callable[[Tensor, Sample], Tensor], data: Sample, seconds: float) -> None:
    """AdamW with a cosine over the processor time that there is; then evaluation mode, without gradients from then on."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    start = time.process_time()
    for rows in batches(len(data["image"])):
        passed = (time.process_time() - start) / seconds
        if passed >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, passed / 0.05) * 0.5 * (1 + np.cos(np.pi * passed))
        optimizer.zero_grad()
        loss_of(rows, varied({name: part[rows] for name, part in data.items()})).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval().requires_grad_(requires_grad=False)


def batches(count: int) -> Iterator[Tensor]:
    """Random rows without end, each once an epoch."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), BATCH)


def varied(batch: Sample) -> Sample:
    """Flips, rotation, zoom, brightness and contrast, image by image."""
    keys = list(batch)
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    vary = Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandAffined(keys, prob=1.0, rotate_range=0.26, scale_range=0.15, translate_range=10, mode=modes, padding_mode="border"),
            RandScaleIntensityd("image", factors=0.2, prob=1.0),
            RandShiftIntensityd("image", offsets=0.2, prob=1.0),
        ]
    )
    found = [vary({key: batch[key][row] for key in keys}) for row in range(len(batch["image"]))]
    return {key: torch.stack([torch.as_tensor(one[key]) for one in found]) for key in keys}
