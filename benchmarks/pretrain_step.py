"""How fast is a step of masked pretraining, and what does the speed cost?

Crops of 64 x 64 x 64 voxels, patches of 8 x 8 x 8, three quarters hidden, width 384 with 6 heads, 6 blocks in the encoder and 2 in the
decoder, MLPs 4 times as wide (or `--mlp`), batch 4, float32, mean squared error on hidden patches. Both arms see the same crops.

- MONAI: MaskedAutoEncoderViT with patches cut, the error on hidden patches and fused AdamW, as one would write it; what enters its decoder
  is cast back to float32, without which its forward fails under bfloat16 autocast
- medssl: `MAE` with the optimiser of training, first with savings alone that change no number (visible patches embedded alone, the last
  block for hidden patches alone, fused kernels), then with less decoded and with a decoder of cross-attention

Arms take turns, a step each; the first round is discarded, and ratios are medians over rounds. Seconds of processor time are compared too,
as they suffer less from other work on the machine. The share of the device's matrix rate is what a step's matrix products, counted by
torch with attention written out as two products, would take at the rate of one large product, over what the step takes. With `--device
cuda`, and with `--bf16` on a processor that computes it, all arms run under bfloat16 autocast. `ratio` of the JSON is of the fastest arm,
`ratio_same_decoder` of that which decodes as MONAI.

`--loss` trains MONAI and one arm of medssl for the same number of steps on the same crops with the same schedule, and compares their errors
on other random crops of the same scans, which may overlap those of training, with the same masks, over all hidden patches.

    python -m benchmarks.pretrain_step [--rounds 10] [--threads 2] [--mlp 1536] [--bf16] [--device cuda --batch 64]
    python -m benchmarks.pretrain_step --loss [--steps 500] [--arm "cross, eighth"]
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from monai.networks.nets.masked_autoencoder_vit import MaskedAutoEncoderViT
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.crops import volumes
from medssl.models.patches import patchify
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training.settings import Training, matrices
from medssl.views.augment import Augment
from medssl.views.batch import Batch
from medssl.views.masking import Masking, PatchMask
from medssl.views.streams import Streams

SIDE, PATCH, WIDTH, HEADS, DEPTH, DECODER_DEPTH, BATCH = 64, 8, 384, 6, 6, 2, 4
PATCHES = (SIDE // PATCH) ** 3
RATIO = 0.75
RATE = 3e-4
PEER = "MONAI MaskedAutoEncoderViT"
STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
ARMS: dict[str, dict[str, Any]] = {
    "all": {},
    "half": {"decoded": 0.5},
    "quarter": {"decoded": 0.25},
    "cross": {"decoder": "cross"},
    "cross, half": {"decoder": "cross", "decoded": 0.5},
    "cross, quarter": {"decoder": "cross", "decoded": 0.25},
    "cross, eighth": {"decoder": "cross", "decoded": 0.125},
}
BEST, SAME = "cross, eighth", "all"

Step = Callable[[int], float]


@dataclass(frozen=True)
class Machine:
    """What arms run on.

    Args:
        device: `cpu` or `cuda`.
        bf16: Under autocast to bfloat16 instead of in float32.
    """

    device: str = "cpu"
    bf16: bool = False


CPU = Machine()
Net = TypeVar("Net", bound=nn.Module)


class Peer(MaskedAutoEncoderViT):
    """MONAI's, which can be told what is visible, so that errors can be compared."""

    visible: Tensor | None = None

    def _masking(self, x: Tensor, masking_ratio: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if self.visible is None:
            found: tuple[Tensor, Tensor, Tensor] = super()._masking(x, masking_ratio)
            return found
        rows = torch.arange(len(x), device=x.device)[:, None]
        mask = torch.ones(len(x), x.shape[1], dtype=torch.int, device=x.device)
        mask[rows, self.visible] = 0
        return x[rows, self.visible], self.visible, mask


def make_peer(mlp: int) -> Peer:
    """MONAI's network."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "mlp_dim": mlp, "num_layers": DEPTH, "num_heads": HEADS, "masking_ratio": RATIO}
    decoder: dict[str, Any] = {
        "decoder_hidden_size": WIDTH,
        "decoder_mlp_dim": mlp,
        "decoder_num_layers": DECODER_DEPTH,
        "decoder_num_heads": HEADS,
    }
    peer = Peer(1, (SIDE,) * 3, (PATCH,) * 3, **sizes, **decoder)
    peer.decoder_embed.register_forward_hook(_in_float32)
    return peer


def _in_float32(layer: nn.Module, given: object, result: Tensor) -> Tensor:
    """The result as MONAI's forward writes it into its float32 mask tokens, which takes no bfloat16."""
    del layer, given
    return result.float()


def make_ours(mlp: int, **options: Any) -> MAE:  # noqa: ANN401
    """Ours, of the same size."""
    torch.manual_seed(0)
    encoder = ViT((PATCH,) * 3, width=WIDTH, depth=DEPTH, heads=HEADS, mlp_width=mlp)
    decoder: dict[str, Any] = {"decoder_width": WIDTH, "decoder_depth": DECODER_DEPTH, "decoder_heads": HEADS, "decoder_mlp_width": mlp}
    return MAE(encoder, mask_ratio=RATIO, normalise_patches=False, views=STILL, **decoder, **options)


def peer_loss(net: Peer, images: Tensor) -> Tensor:
    """Mean squared error on hidden patches."""
    prediction, mask = net(images)
    error = (prediction - patchify(images, (PATCH,) * 3)).square().mean(dim=2)
    return cast(Tensor, (error * mask).sum() / mask.sum())


def our_loss(net: MAE, images: Tensor, number: int) -> Tensor:
    """The same, through the objective."""
    return cast(Tensor, net(Batch.of(images, Streams.of(0, range(number * len(images), (number + 1) * len(images))))).total)


def steps_of(loss: Callable[[int], Tensor], optimizer: torch.optim.Optimizer, machine: Machine = CPU) -> Step:
    """A training step, by number. Reading the loss waits for the device."""

    def step(number: int) -> float:
        optimizer.zero_grad()
        with torch.autocast(machine.device, torch.bfloat16, enabled=machine.bf16):
            total = loss(number)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if machine.device != "cpu":
            torch.cuda.synchronize()
        return float(total.detach())

    return step


def pool_of(count: int, seed: int) -> Tensor:
    """Crops (count, 1, 64, 64, 64) of brains, each scan with zero mean and unit deviation inside."""
    generator, found = np.random.default_rng(seed), volumes()[0]
    inside = [volume[volume > 0] for volume in found]
    crops = np.empty((count, 1, *(SIDE,) * 3), np.float32)
    for crop in crops:
        number = int(generator.integers(len(found)))
        start = [int(generator.integers(0, size - SIDE + 1)) for size in found[number].shape]
        part = found[number][tuple(slice(low, low + SIDE) for low in start)]
        crop[0] = (part - inside[number].mean()) / inside[number].std()
    return torch.from_numpy(crops)


def batches_of(pool: Tensor, size: int = BATCH, seed: int = 1) -> Iterator[Tensor]:
    """Batches without end, the same for every arm."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield pool[torch.randint(len(pool), (size,), generator=generator)]


def matrix_rate(machine: Machine) -> float:
    """Floating-point operations a second of one large matrix product in the precision of the arms."""
    side, kind = 2048 if machine.device == "cpu" else 8192, torch.bfloat16 if machine.bf16 else torch.float32
    left, right = (torch.randn(side, side, device=machine.device).to(kind) for _ in range(2))
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[2:])


def operations(step: Step) -> int:
    """Floating-point operations of the matrix products of a step; attention is written out, as torch counts no fused one on the CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step(0)
    return int(counter.get_total_flops())


def time_arms(arms: dict[str, Step], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of the clock and of the processor that a step of each arm took, in each round but the first."""
    wall: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            start, used = time.perf_counter(), time.process_time()
            arm(number)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    return {name: found[1:] for name, found in wall.items()}, {name: found[1:] for name, found in cpu.items()}


def make_arms(pool: Tensor, mlp: int, rounds: int, machine: Machine, batch: int) -> dict[str, Step]:
    """A training step of MONAI's network and of each of ours, on the same crops."""
    peer = make_peer(mlp).to(machine.device)
    crops = [images.to(machine.device) for images, _ in zip(batches_of(pool, batch), range(rounds + 1), strict=False)]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(peer.parameters(), RATE, fused=True)
    arms: dict[str, Step] = {PEER: steps_of(lambda number: peer_loss(peer, crops[number]), optimizer, machine)}
    for name, options in ARMS.items():
        net = make_ours(mlp, **options).to(machine.device)
        optimizer, _ = Training(learning_rate=RATE).optimizer(net, matrices(net))
        arms[name] = steps_of(lambda number, net=net: our_loss(net, crops[number], number), optimizer, machine)  # type: ignore[misc]
    return arms


def speed(arms: dict[str, Step], mlp: int, rounds: int, machine: Machine, batch: int) -> None:
    """Time all arms and print the table."""
    wall, cpu = time_arms(arms, rounds)
    rate = matrix_rate(machine)
    name_of = torch.cuda.get_device_name() if machine.device != "cpu" else f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"load {os.getloadavg()[0]:.1f} on {name_of}; batch {batch}; one large matrix product runs at {rate / 1e12:.3g} TFLOP/s")
    ratios = {name: _ratio(wall[PEER], found) for name, found in wall.items()}
    cpu_ratios = {name: _ratio(cpu[PEER], found) for name, found in cpu.items()}
    shares = {name: operations(arm) / rate / statistics.median(wall[name]) for name, arm in arms.items()}
    for name, found in wall.items():
        times = f"{ratios[name]:5.2f} x MONAI by the clock, {cpu_ratios[name]:5.2f} x by processor time"
        print(f"{name:28}{1e3 * statistics.median(found):7.0f} ms a step   {times}   {100 * shares[name]:3.0f} % of the matrix rate")
    ours, theirs = (batch / statistics.median(wall[name]) for name in (BEST, PEER))
    record = {"benchmark": "pretrain_step", "medssl": ours, "peer": theirs, "peer_name": PEER, "ratio": ratios[BEST], "unit": "volumes/s"}
    settings = {"device": machine.device, "bf16": machine.bf16, "batch": batch, "mlp": mlp, "arm": BEST, "ratio_same_decoder": ratios[SAME]}
    print(
        json.dumps(record | {"higher_is_better": True} | settings | {"ratios": ratios, "cpu_ratios": cpu_ratios, "matrix_shares": shares})
    )


def _ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(theirs / mine for theirs, mine in zip(peer, ours, strict=True))


def losses(pool: Tensor, aside: Tensor, mlp: int, steps: int, arm: str) -> None:
    """Train both for equal steps, where the crops are, and print their errors on the other crops."""
    device = pool.device.type
    peer, ours = make_peer(mlp).to(device), make_ours(mlp, **ARMS[arm]).to(device)
    theirs = trained_error(PEER, peer, lambda images, _: peer_loss(peer, images), peer_error, pool, aside, steps)
    mine = trained_error(arm, ours, lambda images, number: our_loss(ours, images, number), our_error, pool, aside, steps)
    record = {"benchmark": "pretrain_step_loss", "medssl": mine, "peer": theirs, "peer_name": PEER, "ratio": theirs / mine, "unit": "mse"}
    print(json.dumps(record | {"higher_is_better": False, "device": device, "arm": arm, "mlp": mlp, "steps": steps}))


def trained_error(
    name: str,
    net: Net,
    loss: Callable[[Tensor, int], Tensor],
    error: Callable[[Net, Tensor], float],
    pool: Tensor,
    aside: Tensor,
    steps: int,
) -> float:
    """The error on the other crops after so many steps."""
    torch.manual_seed(1)
    source, start = batches_of(pool), time.process_time()
    optimizer, schedule = Training(steps=steps, learning_rate=RATE).optimizer(net, matrices(net))
    step = steps_of(lambda number: loss(next(source), number), optimizer, Machine(pool.device.type, bf16=pool.is_cuda))
    for number in range(steps):
        found = step(number)
        schedule.step()
        if (number + 1) % 50 == 0:
            print(f"{name} step {number + 1}: {found:.4f}", flush=True)
    used, final = time.process_time() - start, error(net, aside)
    print(f"{name}: error {final:.5f} on other crops, {used:.0f} s of processor time", flush=True)
    return final


def masks_of(crops: Tensor) -> Iterator[tuple[Tensor, PatchMask]]:
    """Batches of the other crops, each with its masks, which depend on nothing else."""
    for start in range(0, len(crops), BATCH):
        part = crops[start : start + BATCH]
        yield part, Masking(RATIO).partition((PATCHES,), streams=Streams.of(9, range(start, start + len(part))), device=part.device)


@torch.no_grad()
def peer_error(net: Peer, crops: Tensor) -> float:
    """Mean squared error on hidden patches."""
    found = []
    for images, mask in masks_of(crops):
        net.visible = mask.visible
        found.append(float(peer_loss(net, images)))
    net.visible = None
    return statistics.mean(found)


@torch.no_grad()
def our_error(net: MAE, crops: Tensor) -> float:
    """The same; hidden patches are decoded in as many parts as in training."""
    found = []
    for images, mask in masks_of(crops):
        rows = torch.arange(len(images))[:, None]
        order = Streams.of(11, range(len(images))).order(mask.hidden.shape[1]).to(images.device)
        for part in order.chunk(round(1 / net.decoded), dim=1):
            asked = PatchMask(mask.visible, mask.hidden[rows, part])
            found.append(float((net.predict(images, asked) - net.target(images, asked)).square().mean()))
    return statistics.mean(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, then the comparison with MONAI as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mlp", type=int, default=4 * WIDTH, help="width inside the MLPs of both arms")
    parser.add_argument("--loss", action="store_true", help="compare errors after equal steps instead of speed")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--arm", choices=list(ARMS), default=BEST, help="of medssl, for --loss")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16 on the processor too, for speed")
    parser.add_argument("--batch", type=int, default=BATCH, help="crops a step, for speed")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    if given.loss:
        losses(pool_of(256, 1).to(given.device), pool_of(32, 2).to(given.device), given.mlp, given.steps, given.arm)
        return
    machine = Machine(given.device, bf16=given.bf16 or given.device == "cuda")
    arms = make_arms(pool_of(max(16, given.batch), 1), given.mlp, given.rounds, machine, given.batch)
    speed(arms, given.mlp, given.rounds, machine, given.batch)


if __name__ == "__main__":
    main()
