"""How many random 96 x 96 x 96 crops a second does one process get from disk as float32 batches of 4?

Eight volumes of 240 x 240 x 155: the four of `shared/data/brats2015` and their mirror images, or generated ones where that folder is not
there. All arms serve the same values, which is checked before anything is timed:

- medssl: a store as `medssl prepare` writes it, through the data set and loader of training
- MONAI: PersistentDataset with RandSpatialCropd
- blosc2: float32, zstd 8, opened for each crop, blocks by the rule that nnU-Net v2 describes (blocks for L1, chunks for L3)
- memory map: a plain float32 `.npy`, kept open, copied into the batch
- memory: the same copy from arrays in memory, which is the limit of float32

Arms are interleaved in one process with one thread; the first round is discarded, ratios are medians of the rounds. The files are in the
page cache, as in every epoch but the first.

    python -m benchmarks.crops [--rounds 15] [--seconds 0.4]
"""

import argparse
import json
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import torch
from monai.data.dataset import PersistentDataset
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import list_data_collate
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandSpatialCropd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.utility.dictionary import EnsureChannelFirstd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from medssl.data.dataset import Crops, load_cases
from medssl.data.entry import decode
from medssl.data.feed import Feed
from medssl.data.prepare import Guard, prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store

BRATS = Path(__file__).resolve().parents[2] / "shared" / "data" / "brats2015"
SHAPE = (240, 240, 155)
SIZE = (96, 96, 96)
BATCH = 4
PEER = "MONAI PersistentDataset"

Float = NDArray[np.float32]
Arm = Iterator[Tensor]

_L1_BYTES, _L3_BYTES, _SHARE = 32768, 1441792, 0.8  # the cache sizes that nnU-Net assumes


def volumes() -> tuple[list[Float], str]:
    """Four volumes and their mirror images, and where they come from."""
    files = sorted(BRATS.glob("*/flair.nii.gz"))
    real = [np.asarray(nib.Nifti1Image.from_filename(file).dataobj, dtype=np.float32) for file in files[:4]]
    if len(real) == 4 and all(volume.shape == SHAPE for volume in real):
        return [*real, *(volume[::-1] for volume in real)], "BRATS 2015 examples and their mirror images"
    return [generated(seed) for seed in range(8)], "generated heads"


def generated(seed: int) -> Float:
    """A head with structures of several sizes in a dark frame."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in SHAPE), indexing="ij", sparse=True)
    head = sum((axis / width) ** 2 for axis, width in zip(axes, (0.6, 0.75, 0.7), strict=True)) < 1
    texture = sum(gaussian_filter(generator.normal(size=SHAPE).astype(np.float32), width) * width**1.5 for width in (1, 3, 9))
    return np.asarray(np.where(head, 3 + texture, 0), dtype=np.float32)


def make_store(folder: Path) -> tuple[Store, str]:
    """The volumes as int16 NIfTI files, prepared."""
    found, origin = volumes()
    for number, volume in enumerate(found):
        place = folder / "scans" / f"p{number}"
        place.mkdir(parents=True)
        image = nib.Nifti1Image(np.rint(200 * volume).astype(np.int16), np.eye(4))
        image.header.set_xyzt_units("mm")
        nib.save(image, place / "flair.nii.gz")
    reason = Guard("mirror images, for speed alone")
    prepare(folder / "scans", folder / "store", preprocess=Preprocess(spacing_mm=(1.0, 1.0, 1.0)), guard=reason)
    return Store(folder / "store"), origin


def corners(seed: int = 1) -> Iterator[tuple[int, tuple[slice, slice, slice, slice]]]:
    """Which volume, and which part of it, without end."""
    generator = np.random.default_rng(seed)
    while True:
        i, j, k = (int(generator.integers(0, length - width + 1)) for length, width in zip(SHAPE, SIZE, strict=True))
        yield int(generator.integers(8)), (slice(None), slice(i, i + SIZE[0]), slice(j, j + SIZE[1]), slice(k, k + SIZE[2]))


def medssl_arm(store: Store) -> Arm:
    """The loader of training."""
    cases = load_cases(store, store.manifest.rows, masks=False)
    feed = Feed(store.folder, Crops(SIZE), batch_size=BATCH)
    return (batch["image"] for batch in feed.labelled(cases, steps=1_000_000, seed=1))


def monai_arm(values: Sequence[Float], folder: Path) -> Arm:
    """Whole volumes cached on disk, cropped after loading."""
    folder.mkdir()
    for number, value in enumerate(values):
        nib.save(nib.Nifti1Image(value[0], np.eye(4)), folder / f"{number}.nii")
    transform = Compose(
        [LoadImaged(keys="image"), EnsureChannelFirstd(keys="image"), RandSpatialCropd(keys="image", roi_size=SIZE, random_size=False)]
    )
    items = [{"image": str(folder / f"{number}.nii")} for number in range(len(values))]
    dataset = PersistentDataset(items, transform, cache_dir=folder / "cache")
    for number in range(len(items)):
        _ = dataset[number]
        (folder / f"{number}.nii").unlink()
    sampler = RandomSampler(items, replacement=True, num_samples=10_000_000)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler, collate_fn=list_data_collate)
    return (_plain(batch["image"]) for batch in loader)


def _plain(image: Tensor) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def blosc2_arm(values: Sequence[Float], folder: Path) -> Arm:
    """Compressed float32, each file opened for each crop."""
    folder.mkdir()
    paths = [folder / f"{number}.b2nd" for number in range(len(values))]
    blocks, chunks = cache_blocks(values[0].shape)
    for path, value in zip(paths, values, strict=True):
        settings = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=8, nthreads=1)
        blosc2.asarray(np.ascontiguousarray(value), urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=settings)

    def cut(number: int, part: tuple[slice, ...]) -> Float:
        array = blosc2.open(str(paths[number]), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
        return np.asarray(array[part])

    return batches(cut)


def cache_blocks(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks that fit into L1, halved from the crop's next power of two, and chunks of whole blocks that fit into L3."""
    block = [shape[0], *(2 ** math.ceil(math.log2(width)) for width in SIZE)]
    while 4 * math.prod(block) > _SHARE * _L1_BYTES:
        axis = max(range(1, 4), key=lambda axis: block[axis] / SIZE[axis - 1])
        block[axis] //= 2
    chunk = list(block)
    while 4 * math.prod(chunk) < _SHARE * _L3_BYTES and statistics.mean(chunk[axis] / SIZE[axis - 1] for axis in (1, 2, 3)) < 1.5:
        axis = min((axis for axis in (1, 2, 3) if chunk[axis] < shape[axis]), key=lambda axis: chunk[axis] / block[axis])
        chunk[axis] = min(chunk[axis] + block[axis], shape[axis])
    return tuple(block), tuple(chunk)


def memory_map_arm(values: Sequence[Float], folder: Path) -> Arm:
    """Plain float32, mapped once."""
    folder.mkdir()
    for number, value in enumerate(values):
        np.save(folder / f"{number}.npy", value)
    maps = [np.asarray(np.load(folder / f"{number}.npy", mmap_mode="r")) for number in range(len(values))]
    return batches(lambda number, part: maps[number][part])


def memory_arm(values: Sequence[Float]) -> Arm:
    """Plain float32 in memory."""
    return batches(lambda number, part: values[number][part])


def batches(cut: Callable[[int, tuple[slice, ...]], Float]) -> Arm:
    """Crops copied into one array a batch."""
    places = corners()
    while True:
        batch = np.empty((BATCH, 1, *SIZE), np.float32)
        for number in range(BATCH):
            batch[number] = cut(*next(places))
        yield torch.from_numpy(batch)


def check_equal(arms: dict[str, Arm], values: Sequence[Float]) -> None:
    """Every crop of a first batch is a part of one of the volumes, value for value."""
    for name, arm in arms.items():
        for crop in next(arm).numpy():
            if not any(_holds(value, crop) for value in values):
                raise SystemExit(f"a crop of {name} is no part of any volume")


def _holds(value: Float, crop: Float) -> bool:
    """Whether a crop lies in a volume; looked for at the places of its brightest voxel."""
    peak = np.unravel_index(int(crop.argmax()), crop.shape)
    for place in np.argwhere(value == crop[peak]):
        start = place - peak
        if (start >= 0).all() and (start + crop.shape <= value.shape).all():
            part = tuple(slice(int(low), int(low) + width) for low, width in zip(start, crop.shape, strict=True))
            if np.array_equal(value[part], crop):
                return True
    return False


def time_arms(arms: dict[str, Arm], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Crops a second of each arm in each round but the first; an arm runs for so many seconds a round."""
    speed: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds + 1):
        for name, arm in arms.items():
            start, count, passed = time.perf_counter(), 0, 0.0
            while passed < seconds:
                next(arm)
                count, passed = count + 1, time.perf_counter() - start
            speed[name].append(count * BATCH / passed)
    return {name: found[1:] for name, found in speed.items()}


def bytes_on_disk(folder: Path, pattern: str) -> int:
    """Bytes of the files of an arm."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, then the comparison with MONAI as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each arm in each round")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        store, origin = make_store(root)
        values = [decode(store.image(row)) for row in store.manifest.rows]
        arms = {
            "medssl": medssl_arm(store),
            PEER: monai_arm(values, root / "monai"),
            "blosc2 as nnU-Net": blosc2_arm(values, root / "blosc2"),
            "float32 memory map": memory_map_arm(values, root / "map"),
            "memory (limit)": memory_arm(values),
        }
        check_equal(arms, values)
        disk = {
            "medssl": bytes_on_disk(root / "store" / "arrays", "*"),
            PEER: bytes_on_disk(root / "monai" / "cache", "*"),
            "blosc2 as nnU-Net": bytes_on_disk(root / "blosc2", "*"),
            "float32 memory map": bytes_on_disk(root / "map", "*"),
        }
        speed = time_arms(arms, rounds=given.rounds, seconds=given.seconds)
    report(speed, disk, origin)


def report(speed: dict[str, list[float]], disk: dict[str, int], origin: str) -> None:
    """The table and the last line."""
    print(f"{origin}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    ratios = {
        name: statistics.median(ours / theirs for ours, theirs in zip(speed["medssl"], found, strict=True)) for name, found in speed.items()
    }
    plain = disk["float32 memory map"]
    for name, found in speed.items():
        size = f"{disk[name] / 1e6:6.1f} MB ({100 * disk[name] / plain:3.0f} %)" if name in disk else ""
        spread = f"{min(found):.0f}-{max(found):.0f}"
        print(f"{name:24}{statistics.median(found):7.0f} crops/s ({spread:>9})   medssl is {ratios[name]:5.2f} x   {size}")
    ours, peer = statistics.median(speed["medssl"]), statistics.median(speed[PEER])
    record = {"benchmark": "crops", "medssl": ours, "peer": peer, "peer_name": PEER, "ratio": ratios[PEER], "unit": "crops/s"}
    print(json.dumps(record | {"higher_is_better": True, "ratios": ratios, "bytes": disk, "volumes": origin}))


if __name__ == "__main__":
    main()
