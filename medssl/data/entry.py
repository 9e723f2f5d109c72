"""One stored scan: a plain float16 array and a mask of bits, each a `.npy` file, and a record that knows the hash of both.

The arrays are mapped into memory, so a crop reads its own pages and nothing else. Why not compressed: `docs/store.md`.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.masks import Bits
from medssl.data.preprocess import Preprocess
from medssl.data.seals import read_sealed, seal
from medssl.files import Bytes, write_whole

__all__ = [
    "FORMAT",
    "Array",
    "Bits",
    "Entry",
    "Part",
    "Stored",
    "decode",
    "encode",
    "entry_key",
    "entry_path",
    "remove_entry",
    "write_entry",
]

FORMAT = 4
_THICK = 2.0  # slices more than this many times as far apart as pixels are read one by one

Array = NDArray[np.generic]
Stored = NDArray[np.float16]


@dataclass(frozen=True)
class Part:
    """A file of an entry: its length and the SHA-256 of its bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """What is known of a stored scan without opening its arrays.

    Args:
        key: Identity of the content: scan, mask, preprocessing and format.
        scan_id: The scan.
        shape: (C, I, J, K) of the image.
        affine: 4 x 4 RAS+ of the stored grid.
        slices_first: The file holds slice after slice, for scans that are read in slices.
        lesion_slices: Indices along K where the mask is not empty.
        levels: Of each channel: values at or below it are background, outside the body or defaced.
        present: Of each channel: whether there is anything in it; a sequence that a scan lacks is constant.
        image: The array of float16.
        lesion: The mask, None where there is none.
        values: What a mask holds that tells classes apart; empty for lesion against none.
        value_slices: Of each of these values: indices along K where it is.
    """

    key: str
    scan_id: str
    shape: tuple[int, int, int, int]
    affine: tuple[tuple[float, ...], ...]
    slices_first: bool
    lesion_slices: tuple[int, ...]
    levels: tuple[float, ...]
    present: tuple[bool, ...]
    image: Part
    lesion: Part | None
    values: tuple[int, ...] = ()
    value_slices: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def read(cls, folder: Path, scan_id: str, key: str) -> "Entry | None":
        """The record of a scan; None when it is absent, damaged, of another scan or of another content."""
        fields = read_sealed(entry_path(folder, scan_id, key, "json"))
        if fields is None or fields.pop("format", None) != FORMAT or (fields["scan_id"], fields["key"]) != (scan_id, key):
            return None
        lesion = fields["lesion"]
        return cls(
            key=key,
            scan_id=scan_id,
            shape=tuple(fields["shape"]),
            affine=tuple(map(tuple, fields["affine"])),
            slices_first=fields["slices_first"],
            lesion_slices=tuple(fields["lesion_slices"]),
            levels=tuple(fields["levels"]),
            present=tuple(fields["present"]),
            image=Part(**fields["image"]),
            lesion=None if lesion is None else Part(**lesion),
            values=tuple(fields.get("values", ())),
            value_slices=tuple(map(tuple, fields.get("value_slices", ()))),
        )

    def path(self, folder: Path, kind: str) -> Path:
        """The file of the `image` or the `lesion`."""
        return entry_path(folder, self.scan_id, self.key, f"{kind}.npy")

    def part(self, kind: str) -> Part | None:
        """Length and hash of the `image` or the `lesion`."""
        return self.image if kind == "image" else self.lesion

    def is_intact(self, folder: Path, kind: str) -> bool:
        """Whether a file holds the bytes that were written; reads all of it."""
        part, path = self.part(kind), self.path(folder, kind)
        if part is None:
            return True
        try:
            if path.stat().st_size != part.bytes:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == part.sha256
        except (FileNotFoundError, NotADirectoryError):
            return False

    def open(self, folder: Path, kind: str) -> Array:
        """The array of a file as it lies on disk, axes in the order (C, I, J, K); reads nothing yet."""
        mapped = np.asarray(np.load(self.path(folder, kind), mmap_mode="c", allow_pickle=False))
        return np.moveaxis(mapped, 0, 3) if self.slices_first else mapped

    def bits(self, packed: Array) -> "Bits":
        """The mask in what `open` gives."""
        shape = (1, *self.shape[1:])
        return Bits(np.asarray(packed, dtype=np.uint8), shape, axis=2 if self.slices_first else 3, values=self.values or (1,))

    def as_record(self) -> dict[str, object]:
        """The entry for JSON; that a mask tells no classes apart is not said, as it was before masks could."""
        fields = {"format": FORMAT, **asdict(self)}
        return fields if self.values else {name: value for name, value in fields.items() if name not in ("values", "value_slices")}


def entry_key(content_sha256: str, preprocess: Preprocess) -> str:
    """Identity of what is stored of a scan.

    Args:
        content_sha256: Hash of the scan's voxels, place and mask.
        preprocess: Grid and intensity.
    """
    text = json.dumps([FORMAT, content_sha256, preprocess.digest()])
    return hashlib.sha256(text.encode()).hexdigest()


def entry_path(folder: Path, scan_id: str, key: str, suffix: str) -> Path:
    """Where a file of an entry lies in the store."""
    return folder / "arrays" / f"{scan_id}-{key[:16]}.{suffix}"


def write_entry(
    folder: Path, scan_id: str, key: str, *, image: Stored, affine: NDArray[np.float64], lesion: NDArray[np.uint8] | None = None
) -> Entry:
    """Write the arrays of a scan and then their record, whose presence means that the entry is whole.

    Args:
        folder: The store.
        scan_id: The scan.
        key: What `entry_key` gives.
        image: (C, I, J, K) as `encode` gives it.
        affine: 4 x 4 of that grid.
        lesion: (1, I, J, K) on the same grid: 0 and 1, or a value for each class.

    Raises:
        NoSpaceError: The disk is full.
    """
    i_mm, j_mm, k_mm = np.linalg.norm(affine[:3, :3], axis=0)
    slices_first = bool(k_mm > _THICK * min(i_mm, j_mm)) or image.shape[3] == 1
    mask = None if lesion is None else Bits.of(lesion, axis=2 if slices_first else 3)
    values = () if mask is None or mask.values == (1,) else mask.values
    channels, i, j, k = image.shape
    entry = Entry(
        key=key,
        scan_id=scan_id,
        shape=(channels, i, j, k),
        affine=tuple(map(tuple, affine.tolist())),
        slices_first=slices_first,
        lesion_slices=() if lesion is None else _slices(lesion > 0),
        levels=tuple(_level(channel) for channel in image),
        present=tuple(bool((channel != channel[0, 0, 0]).any()) for channel in image),
        image=_write(entry_path(folder, scan_id, key, "image.npy"), image, slices_first),
        lesion=None if mask is None else _write(entry_path(folder, scan_id, key, "lesion.npy"), mask.packed, slices_first),
        values=values,
        value_slices=tuple(_slices(lesion == value) for value in values) if lesion is not None else (),
    )
    write_whole(entry_path(folder, scan_id, key, "json"), [seal(entry.as_record())])
    return entry


def _slices(voxels: NDArray[np.bool_]) -> tuple[int, ...]:
    """Indices along K where anything of (1, I, J, K) is true."""
    return tuple(np.flatnonzero(voxels.any(axis=(0, 1, 2))).tolist())


def _level(channel: Stored) -> float:
    """A value between background and tissue: a twentieth of the way from the 1st to the 99th percentile.

    The darkest voxel would not do: resampling leaves some far below air beside bright edges.
    """
    sample = channel[tuple(slice(None, None, max(1, length // 64)) for length in channel.shape)].astype(np.float32)
    low, high = (float(value) for value in np.percentile(sample, (1, 99)))
    return low + 0.05 * (high - low)


def _write(path: Path, array: Array, slices_first: bool) -> Part:
    ordered = np.ascontiguousarray(np.moveaxis(array, 3, 0) if slices_first else array)
    parts = list(_npy(ordered))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    write_whole(path, parts)
    return Part(digest.hexdigest(), sum(map(len, parts)))


def _npy(array: Array) -> Iterator[Bytes]:
    """The bytes of a `.npy` file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    yield header.getvalue()
    yield array.reshape(-1).view(np.uint8).data


def remove_entry(folder: Path, scan_id: str, key: str) -> None:
    """Remove the files of an entry; the record goes first."""
    for suffix in ("json", "image.npy", "lesion.npy"):
        entry_path(folder, scan_id, key, suffix).unlink(missing_ok=True)


def encode(values: NDArray[np.floating]) -> Stored:
    """Values as they are stored: 11 bits of precision, so that a z-score of 1 is kept to 0.0005; saturated at the ends of float16."""
    limit = np.finfo(np.float16).max
    return np.asarray(np.clip(values, -limit, limit), dtype=np.float16)


def decode(stored: Stored) -> NDArray[np.float32]:
    """Stored values as float32."""
    return stored.astype(np.float32)
