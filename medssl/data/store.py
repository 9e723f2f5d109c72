"""A prepared folder: its manifest, its preprocessing, and the stored scans, none of which is served when it was changed on disk."""

import hashlib
import io
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.entry import FORMAT, Array, Bits, Entry, Stored, decode, encode
from medssl.data.fingerprint import Bits as Signs
from medssl.data.intake import Storing, keep
from medssl.data.leakage import Leakage
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.preprocess import Preprocess
from medssl.data.seals import read_sealed, seal
from medssl.errors import ConflictError, MedSSLError, ScanError, UsageError
from medssl.files import write_new, write_whole

__all__ = ["Index", "Store", "decode", "encode", "write_store"]

logger = logging.getLogger(__name__)

_OPEN_ARRAYS = 256  # each holds a file open; systems allow about a thousand


@dataclass(frozen=True)
class Index:
    """`store.json`: what a store holds.

    Args:
        preprocess: Grid and intensity of all scans.
        source: The data folder, relative to the store; where it can be reached, damaged scans are made again from it.
        scans: Key of the entry and hash of what it was made from, by scan_id, in the order of the fingerprints.
        fingerprints: SHA-256 of `fingerprints.npy`, empty where there are none.
    """

    preprocess: Preprocess
    source: str
    scans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    fingerprints: str = ""

    @classmethod
    def read(cls, store: Path) -> "Index | None":
        """The index of a store; None where it is absent or was changed.

        Raises:
            ConflictError: The store has another format.
        """
        fields = read_sealed(store / "store.json")
        older = fields is None and (store / "preprocess.json").is_file() and not (store / "store.json").exists()
        found = 1 if older else FORMAT if fields is None else fields.get("format")
        if found != FORMAT:
            raise ConflictError(f"{store.name} holds a store of format {found}, this medssl reads {FORMAT}; prepare another out folder")
        if fields is None:
            return None
        scans = {scan_id: (key, content) for scan_id, (key, content) in fields["scans"].items()}
        return cls(Preprocess.from_dict(fields["preprocess"]), fields["source"], scans, fields["fingerprints"])

    def write(self, store: Path) -> None:
        """Write the index, whole or not at all."""
        write_whole(store / "store.json", [self._sealed()])

    def claim(self, store: Path) -> None:
        """Write the index of a store that holds nothing yet; of several processes the first decides.

        Raises:
            ConflictError: The store has another preprocessing.
        """
        if write_new(store / "store.json", [self._sealed()]):
            return
        owner = Index.read(store)
        if owner is None:
            self.write(store)
        elif owner.preprocess != self.preprocess:
            raise ConflictError(f"{store.name} holds a store with another preprocessing; give another out folder")

    def _sealed(self) -> bytes:
        return seal({"format": FORMAT, **asdict(self), "preprocess": self.preprocess.as_dict()})


def write_store(folder: Path, manifest: Manifest, index: Index, *, signs: Signs, leakage: Leakage) -> None:
    """Write all that a store holds beside the scans; the index comes last.

    Args:
        folder: The store.
        manifest: The scans.
        index: What is stored; its scans are in the order of the manifest.
        signs: (N, 2, 4, 64) fingerprints in the same order.
        leakage: What the guard found.
    """
    data = io.BytesIO()
    np.save(data, signs)
    write_whole(folder / "fingerprints.npy", [data.getvalue()])
    leakage.write(folder)
    manifest.write(folder / "manifest.csv")
    replace(index, fingerprints=hashlib.sha256(data.getvalue()).hexdigest()).write(folder)


class Store:
    """A prepared folder: `manifest.csv`, `store.json`, `leakage.json`, `fingerprints.npy` and `arrays/`.

    Every file of a scan is checked once in each process, when it is first opened. A damaged one is made again from the data folder with
    one warning, or an error says so where that folder is out of reach.

    Args:
        folder: What `medssl prepare` wrote.

    Raises:
        UsageError: The folder is not there or not prepared.
        ConflictError: It holds a store of another format.
        MedSSLError: Its index was changed.
    """

    def __init__(self, folder: Path) -> None:
        index = Index.read(folder)
        if not (folder / "manifest.csv").is_file() or not (folder / "store.json").exists():
            raise UsageError(f"{folder.name} is not a prepared store (no manifest.csv and store.json); run medssl prepare first")
        if index is None:
            raise MedSSLError(f"store.json of {folder.name} is damaged; run medssl prepare again")
        self.folder = folder
        self.index = index
        self.manifest = Manifest.read(folder / "manifest.csv")
        self.leakage = Leakage.read(folder)
        self._entries: dict[str, Entry] = {}
        self._intact: set[tuple[str, str]] = set()
        self._open: OrderedDict[tuple[str, str], Array] = OrderedDict()

    @property
    def preprocess(self) -> Preprocess:
        """Grid and intensity of all scans."""
        return self.index.preprocess

    def __getstate__(self) -> dict[str, Any]:
        """A store goes to another process without its open files, and is checked there again."""
        return {**self.__dict__, "_open": OrderedDict(), "_intact": set()}

    def entry(self, row: ManifestRow) -> Entry:
        """What is known of a stored scan without opening its arrays.

        Raises:
            MedSSLError: The entry is damaged and cannot be made again.
        """
        known = self._entries.get(row.scan_id)
        if known is None:
            storing = self._storing(row)
            known = Entry.read(self.folder, row.scan_id, storing.key) or self._again(storing)
            self._entries[row.scan_id] = known
        return known

    def image(self, row: ManifestRow) -> Stored:
        """The stored `(C, I, J, K)` float16 array of a scan, mapped into memory; `decode` makes float32 of a part of it.

        Raises:
            MedSSLError: The entry is damaged and cannot be made again.
        """
        return np.asarray(self._opened(row, "image"), dtype=np.float16)

    def mask(self, row: ManifestRow) -> Bits | None:
        """The mask of a scan, to be read in parts; None where it has none."""
        return None if self.entry(row).lesion is None else self.entry(row).bits(self._opened(row, "lesion"))

    def lesion(self, row: ManifestRow) -> NDArray[np.uint8] | None:
        """The whole `(1, I, J, K)` mask of a scan, None where it has none."""
        mask = self.mask(row)
        return None if mask is None else mask.whole()

    def geometry(self, row: ManifestRow) -> NDArray[np.float64]:
        """The 4 x 4 RAS+ affine of the stored grid."""
        return np.array(self.entry(row).affine)

    def signs(self, rows: Sequence[ManifestRow]) -> Signs:
        """The fingerprints (N, 2, 4, 64) of scans.

        Raises:
            MedSSLError: They are absent or damaged.
        """
        path = self.folder / "fingerprints.npy"
        data = path.read_bytes() if path.is_file() else b""
        if not self.index.fingerprints or hashlib.sha256(data).hexdigest() != self.index.fingerprints:
            raise MedSSLError(f"fingerprints.npy of {self.folder.name} is damaged; run medssl prepare again")
        place = {scan_id: number for number, scan_id in enumerate(self.index.scans)}
        every = np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.uint64)
        return every[[place[row.scan_id] for row in rows]]

    def _opened(self, row: ManifestRow, kind: str) -> Array:
        """An open array; the one that was not used for longest makes room for a new one."""
        name = (row.scan_id, kind)
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        entry = self.entry(row)
        if name not in self._intact and not entry.is_intact(self.folder, kind):
            entry = self._entries[row.scan_id] = self._again(self._storing(row))
        self._intact.add(name)
        self._open[name] = entry.open(self.folder, kind)
        if len(self._open) > _OPEN_ARRAYS:
            self._open.popitem(last=False)
        return self._open[name]

    def _storing(self, row: ManifestRow) -> Storing:
        if row.scan_id not in self.index.scans:
            raise MedSSLError(f"scan {row.scan_id} of manifest.csv is not in the store; run medssl prepare again")
        source = Path(os.path.normpath(self.folder.resolve() / self.index.source))
        return Storing(source, self.folder, row, self.index.scans[row.scan_id][1], self.preprocess)

    def _again(self, storing: Storing) -> Entry:
        """Make a damaged entry again from the data folder."""
        try:
            keep(storing)
        except (ScanError, UsageError, OSError) as error:
            raise MedSSLError(f"store entry of scan {storing.row.scan_id} is damaged; run medssl prepare again") from error
        entry = Entry.read(self.folder, storing.row.scan_id, storing.key)
        if entry is None:
            raise MedSSLError(f"store entry of scan {storing.row.scan_id} is damaged; run medssl prepare again")
        logger.warning("the store entry of scan %s was damaged and was made again", storing.row.scan_id)
        return entry
