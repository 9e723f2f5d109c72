"""Reading the scans of a layout: a usable row with all that was learned of it, or the reason why it is refused."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.defaced import without_region
from medssl.data.entry import FORMAT, Entry, encode, entry_key, entry_path, write_entry
from medssl.data.fingerprint import Bits, fingerprint
from medssl.data.manifest import ManifestRow, row_warnings
from medssl.data.masks import class_values, drawn
from medssl.data.preprocess import Preprocess
from medssl.data.seals import read_sealed, seal
from medssl.data.stamp import stamp_of
from medssl.errors import ScanError, UsageError
from medssl.files import write_whole
from medssl.io.dicom.case import read_case
from medssl.io.discover import Scan, find_sources, read_scan
from medssl.io.options import AS_STORED, ReadOptions
from medssl.io.voxels import exact_sha256, voxels_sha256
from medssl.volume import Volume

_LEARNED = 2  # version of what is remembered of a scan; what was remembered before is read again
_SAME_PLACE = 0.1  # of a voxel: grids whose corners lie further apart are not the same
_MOST_DEFACED = 0.5  # of a scan; a mask of more may say what was kept


@dataclass(frozen=True, eq=False)
class Intake:
    """What reading one row of the layout gave: a usable row, or the reason it was refused.

    Args:
        row: The row, completed from the scan.
        shape: Voxels along I, J, K; None when refused.
        spacing_mm: Voxel size; None when refused.
        affine_ras: 4 x 4; None when refused.
        refusal: Reason code of a refusal, empty when the scan is used.
        note: The refusal in a sentence.
        warnings: Reason codes of a scan that is used all the same.
        voxels_sha256: The fingerprint of the report, over rounded values.
        content_sha256: Hash of all that a stored scan is made from: voxels, place and mask.
        signs: Fingerprint of the scan; None when refused.
        format: Format by content; empty where nothing was read.
        defaced_share: Share of the voxels that a mask says were defaced; None where none is given.
    """

    row: ManifestRow
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    affine_ras: list[list[float]] | None = None
    refusal: str = ""
    note: str = ""
    warnings: tuple[str, ...] = ()
    voxels_sha256: str = ""
    content_sha256: str = ""
    signs: Bits | None = None
    format: str = ""
    defaced_share: float | None = None

    @property
    def status(self) -> str:
        """`accepted`, `accepted_with_warning` or `rejected`."""
        if self.refusal:
            return "rejected"
        return "accepted_with_warning" if self.warnings else "accepted"

    def as_record(self) -> dict[str, object]:
        """The intake as a record of `intake.json`."""
        return {
            "scan_id": self.row.scan_id,
            "source": self.row.image,
            "format": self.format or "unknown",
            "status": self.status,
            "reasons": [self.refusal] if self.refusal else list(self.warnings),
            "modality": self.row.modality,
            "shape": self.shape,
            "spacing_mm": self.spacing_mm,
            "affine_ras": self.affine_ras,
            "voxels_sha256": self.voxels_sha256 or None,
            **self.extras,
        }

    @property
    def extras(self) -> dict[str, object]:
        """What only some records have."""
        return {} if self.defaced_share is None else {"defaced_share": round(self.defaced_share, 6)}


@dataclass(frozen=True)
class Reading:
    """A scan to be read.

    Args:
        folder: The data folder.
        store: The store, where what was learned is remembered.
        row: The scan.
        preprocess: When it is known before all scans are read, the scan is stored at once.
        options: How it is read.
    """

    folder: Path
    store: Path
    row: ManifestRow
    preprocess: Preprocess | None = None
    options: ReadOptions = AS_STORED


@dataclass(frozen=True)
class Storing:
    """A scan to be stored, which was read before.

    Args:
        folder: The data folder.
        store: The store.
        row: The scan.
        content_sha256: What it was read from, see `Intake`.
        preprocess: Grid and intensity.
    """

    folder: Path
    store: Path
    row: ManifestRow
    content_sha256: str
    preprocess: Preprocess

    @property
    def key(self) -> str:
        """Identity of what is stored."""
        return entry_key(self.content_sha256, self.preprocess)


def take_in(reading: Reading) -> Intake:
    """Read a scan, or remember what was learned of it when its files are those of then."""
    row = reading.row
    stamp, is_settled = stamp_of(reading.folder, row, reading.options, version=f"{FORMAT} {_LEARNED}")
    memory = reading.store / "readings" / f"{row.scan_id}.json"
    known = _recalled(memory, stamp, row)
    if known is not None:
        return known
    try:
        parts = _read_parts(reading.folder, row, reading.options)
        told = _told(parts)
        intake = _learned(_filled(row, told), parts)
        if reading.preprocess is not None:
            _put(Storing(reading.folder, reading.store, intake.row, intake.content_sha256, reading.preprocess), parts.image, parts.lesion)
    except ScanError as error:
        return Intake(row, refusal=error.code, note=str(error), format=_format(reading))
    except MemoryError:
        return Intake(row, refusal="too_large", note="too_large: the scan does not fit into memory", format=_format(reading))
    if is_settled:
        write_whole(memory, [seal(_memory(intake, stamp, told))])
    return intake


def _format(reading: Reading) -> str:
    """The format by content of a scan that was refused, empty where it is not one."""
    try:
        formats = {each.format for each in find_sources(reading.folder / reading.row.sources[0], reading.options)}
    except UsageError:
        return ""
    return formats.pop() if len(formats) == 1 else ""


def keep(storing: Storing) -> bool:
    """Make sure that the store holds a scan whole; returns whether a damaged entry was replaced.

    Raises:
        ScanError: The scan cannot be read any more, or `changed_while_read` when it is no longer the one that was read.
    """
    entry = Entry.read(storing.store, storing.row.scan_id, storing.key)
    if entry is not None and entry.is_intact(storing.store, "image") and entry.is_intact(storing.store, "lesion"):
        return False
    was_there = entry_path(storing.store, storing.row.scan_id, storing.key, "json").exists()
    image, lesion = read_row(storing.folder, storing.row, storing.preprocess.read)
    if content_sha256(image, lesion) != storing.content_sha256:
        raise ScanError("changed_while_read", f"scan {storing.row.scan_id} is not what it was when it was read; run medssl prepare again")
    _put(storing, image, lesion)
    return was_there


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a row was read from, put together.

    Args:
        image: The channels in one volume, without what was defaced.
        lesion: The mask in the same place, None where there is none.
        first: The first channel that is there.
        warnings: Codes of what is odd about the channels and the masks.
        original: The channels as the files hold them.
        defaced_share: See `Intake`.
    """

    image: Volume
    lesion: Volume | None
    first: Scan
    warnings: tuple[str, ...]
    original: Volume
    defaced_share: float | None


def read_row(folder: Path, row: ManifestRow, options: ReadOptions = AS_STORED) -> tuple[Volume, Volume | None]:
    """The scan of a row, its channels stacked, and its mask where it has one, both in RAS order and in one place.

    A sequence that the scan lacks is a channel of zeros; a region that was defaced is background.

    Raises:
        ScanError: Unreadable, `channel_mismatch` between channels, `label_mismatch` between scan and mask, or what `without_region` raises.
    """
    parts = _read_parts(folder, row, options)
    return parts.image, parts.lesion


def _read_parts(folder: Path, row: ManifestRow, options: ReadOptions) -> _Parts:
    channels = {part: read_scan(folder / part, options) for part in row.sources}
    first = channels[row.sources[0]]
    if any(not _is_in_place(channel.volume, first.volume) for channel in channels.values()):
        raise ScanError("channel_mismatch", "the channels of the scan have different shapes or places")
    absent = np.zeros_like(first.volume.array)
    stacked = np.concatenate([channels[part].volume.array if part else absent for part in row.image.split(";")])
    image, warnings = replace(first.volume, array=stacked), [code for channel in channels.values() for code in channel.warnings]
    (lesion, of_lesion), (region, of_region) = (_read_mask(folder, row, column, image, options) for column in ("lesion", "defaced"))
    warnings += [*of_lesion, *of_region]
    original, share = image, None
    if region is not None:
        defaced = region.array[0] > 0
        image, share = without_region(image, defaced, None if lesion is None else lesion.array[0] > 0), float(defaced.mean())
        warnings += ["mostly_defaced"] * (share > _MOST_DEFACED)
    return _Parts(image, lesion, first, tuple(dict.fromkeys(warnings)), original, share)


def _read_mask(folder: Path, row: ManifestRow, column: str, image: Volume, options: ReadOptions) -> tuple[Volume | None, tuple[str, ...]]:
    """The mask that a column names, None where it is empty, and codes of what is odd about it."""
    if not getattr(row, column):
        return None, ()
    mask = read_scan(folder / getattr(row, column), options, constant_allowed=True)
    if not _is_in_place(mask.volume, image):
        raise ScanError("label_mismatch", f"the {column} mask has shape {mask.volume.shape} or place unlike the scan's {image.shape}")
    array, is_whole = drawn(mask.volume.array, lossy=mask.source.format == "jpeg")
    return replace(mask.volume, array=array, affine=image.affine), (*mask.warnings, *["mask_not_whole"] * (not is_whole))


def _is_in_place(one: Volume, other: Volume) -> bool:
    """Whether two grids are one, but for rounding."""
    return one.shape == other.shape and _apart(one, other) <= _SAME_PLACE * min(other.spacing_mm)


def _apart(one: Volume, other: Volume) -> float:
    """How far apart, in mm, the corners of two grids of one shape lie at most."""
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in one.shape))])
    return float(np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1).max())


def _put(storing: Storing, image: Volume, lesion: Volume | None) -> None:
    prepared = storing.preprocess(image)
    write_entry(
        storing.store,
        storing.row.scan_id,
        storing.key,
        image=encode(np.asarray(prepared.array, dtype=np.float32)),
        affine=prepared.affine,
        lesion=None if lesion is None else storing.preprocess.lesion(lesion, prepared),
    )


def _told(parts: _Parts) -> dict[str, str]:
    """What the files of a scan tell for its row: the header of a DICOM scan, and the distance of slices where there is geometry."""
    source = parts.first.source
    told = read_case(source.files[0].path) if source.files and source.packed is None else {}
    return told if parts.image.nominal else told | {"slice_mm": f"{parts.first.slice_mm:.4g}"}


def _filled(row: ManifestRow, told: Mapping[str, str]) -> ManifestRow:
    """The row with what its files tell; what a table says stands."""
    return replace(row, **{name: value for name, value in told.items() if not getattr(row, name)})  # type: ignore[arg-type]


def _learned(row: ManifestRow, parts: _Parts) -> Intake:
    image, lesion = parts.original, parts.lesion
    has_lesion = row.has_lesion if lesion is None else str(int(bool(np.any(lesion.array))))
    full = replace(row, sha256=exact_sha256(image), has_lesion=has_lesion, modality=image.modality or row.modality, nominal=image.nominal)
    return Intake(
        row=full,
        shape=image.shape,
        spacing_mm=image.spacing_mm,
        affine_ras=image.affine.tolist(),
        warnings=(*parts.warnings, *row_warnings(row)),
        voxels_sha256=voxels_sha256(image),
        content_sha256=content_sha256(parts.image, lesion),
        signs=fingerprint(image),
        format=parts.first.source.format,
        defaced_share=parts.defaced_share,
    )


def content_sha256(image: Volume, lesion: Volume | None) -> str:
    """Hash of all that a stored scan is made from: what `read_row` gives."""
    mask = "" if lesion is None else _mask_sha256(lesion.array[0])
    return hashlib.sha256(json.dumps([exact_sha256(image), image.affine.tolist(), image.nominal, mask]).encode()).hexdigest()


def _mask_sha256(mask: NDArray[Any]) -> str:
    """Hash of where lesion is and, where the mask tells classes apart, of which class."""
    values = class_values(mask)
    planes = [mask == value for value in values] if values else [mask > 0]
    digest = hashlib.sha256(json.dumps(values).encode() if values else b"")
    for plane in planes:
        digest.update(np.packbits(plane).tobytes())
    return digest.hexdigest()


def _memory(intake: Intake, stamp: str, told: Mapping[str, str]) -> dict[str, Any]:
    """What is remembered of a scan: all that its files say, nothing that a table says."""
    row = intake.row
    return {
        "stamp": stamp,
        "row": {"sha256": row.sha256, "has_lesion": row.has_lesion, "modality": row.modality, "nominal": row.nominal},
        "told": dict(told),
        "format": intake.format,
        "warnings": [code for code in intake.warnings if code not in row_warnings(row)],
        "shape": intake.shape,
        "spacing_mm": intake.spacing_mm,
        "affine_ras": intake.affine_ras,
        "voxels_sha256": intake.voxels_sha256,
        "content_sha256": intake.content_sha256,
        "signs": "" if intake.signs is None else base64.b64encode(intake.signs.tobytes()).decode(),
        **intake.extras,
    }


def _recalled(memory: Path, stamp: str, row: ManifestRow) -> Intake | None:
    record = read_sealed(memory)
    if record is None or record["stamp"] != stamp:
        return None
    i, j, k = record["shape"]
    i_mm, j_mm, k_mm = record["spacing_mm"]
    signs = np.frombuffer(base64.b64decode(record["signs"]), np.uint64).reshape(2, 4, -1)
    said = record["row"] if row.lesion else {**record["row"], "has_lesion": row.has_lesion}
    return Intake(
        row=_filled(replace(row, **said), record["told"]),
        shape=(i, j, k),
        spacing_mm=(i_mm, j_mm, k_mm),
        affine_ras=record["affine_ras"],
        warnings=(*record["warnings"], *row_warnings(row)),
        voxels_sha256=record["voxels_sha256"],
        content_sha256=record["content_sha256"],
        signs=signs,
        format=record["format"],
        defaced_share=record.get("defaced_share"),
    )
