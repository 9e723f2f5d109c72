"""A small DICOM element reader: finds the wanted tags and the pixel data, trusts no length, never recurses deeper than a cap.

PS3.5 sections 7 and A. pydicom is the reference; it has no cap on nesting, reads short values in silence and prints tag values in
its warnings, which is why headers of files nobody vouches for are walked here.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import TypeAlias

from medssl.errors import ScanError

Elements: TypeAlias = "dict[int, bytes | list[Elements]]"

UNDEFINED = 0xFFFFFFFF
SYNTAX = 0x00020010
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 64
_NESTING_BYTES = 16 * _MAX_DEPTH  # a shorter value cannot be nested too deep
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI"}
    | {b"UL", b"US"}
)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
_INFLATE_STEP = 1 << 20
_INFLATE_FLOOR = 4 << 20  # below, any ratio is harmless
_INFLATE_RATIO = 200
_INFLATE_CAP = 512 << 20


class MoreNeeded(Exception):  # noqa: N818 - no failure: the caller reads more of the file and tries again
    """The header is longer than the bytes read so far."""


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data lie: offset of the value in the (inflated) file; the length is None for encapsulated data."""

    tag: int
    vr: bytes
    offset: int
    length: int | None


@dataclass(frozen=True)
class Leaf:
    """A value outside of any sequence: where it lies in the file, and its tag."""

    start: int
    end: int
    tag: int


@dataclass(frozen=True)
class Parsed:
    """The wanted elements of one file.

    Args:
        syntax: Transfer syntax UID.
        elements: Tag to raw value, or to items for a sequence.
        pixels: The pixel data element, None where there is none.
        warnings: `missing_preamble`, `missing_file_meta`.
        inflated: The whole data set, for the deflated syntax only.
        leaves: Every value outside of sequences, in the order of the file.
    """

    syntax: str
    big_endian: bool
    elements: Elements
    pixels: PixelElement | None
    warnings: tuple[str, ...]
    inflated: bytes | None = None
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True)
class _Coding:
    explicit: bool
    order: str  # of struct: < or >


class ElementReader:
    """Walks the elements in a buffer.

    Args:
        buffer: The first bytes of a file, or all of them.
        complete: The buffer holds the whole file.
        wanted: Tags to keep; everything else is stepped over.
    """

    def __init__(self, buffer: bytes, *, complete: bool, wanted: frozenset[int]) -> None:
        self.buffer = buffer
        self.complete = complete
        self.wanted = wanted
        self.pixels: PixelElement | None = None
        self.leaves: list[Leaf] = []

    def need(self, end: int) -> None:
        """Make sure that the buffer reaches `end`.

        Raises:
            MoreNeeded: The file may hold more than was read.
            ScanError: `truncated`.
        """
        if end > len(self.buffer):
            if self.complete:
                raise ScanError("truncated", "the file ends inside its header")
            raise MoreNeeded

    def header(self, at: int, coding: _Coding) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and offset of the value of the element at `at`."""
        self.need(at + 8)
        group, element, raw, short = struct.unpack_from(f"{coding.order}HH2sH", self.buffer, at)
        tag = group << 16 | element
        if group == 0xFFFE or not coding.explicit:
            return tag, b"", struct.unpack_from(f"{coding.order}I", self.buffer, at + 4)[0], at + 8
        if raw in _LONG:
            self.need(at + 12)
            return tag, raw, struct.unpack_from(f"{coding.order}I", self.buffer, at + 8)[0], at + 12
        if raw not in _SHORT:
            raise ScanError("bad_header", f"element ({group:04X},{element:04X}) has no known value representation")
        return tag, raw, short, at + 8

    def dataset(self, at: int, end: int | None, coding: _Coding, depth: int = 0) -> tuple[Elements, int]:
        """Elements from `at` to `end`, or to the item's delimiter (or the end of the file, or the pixel data) where `end` is None."""
        if depth > _MAX_DEPTH:
            raise ScanError("nesting", f"sequences are nested deeper than {_MAX_DEPTH}")
        found: Elements = {}
        while end is None or at < end:
            if depth == 0 and end is None and at == len(self.buffer) and self.complete:
                break
            tag, vr, length, value = self.header(at, coding)
            if tag == _ITEM_END:
                return found, value
            if depth == 0 and tag in PIXEL_TAGS:
                self.pixels = PixelElement(tag, vr, value, None if length == UNDEFINED else length)
                break
            at = self._value(tag, vr, length, value, coding, depth, found)
        return found, at

    def _value(self, tag: int, vr: bytes, length: int, value: int, coding: _Coding, depth: int, found: Elements) -> int:
        if length == UNDEFINED:
            # PS3.5 6.2.2: an undefined length UN is a sequence in implicit little endian
            inner = _Coding(explicit=False, order="<") if vr == b"UN" else coding
            items, after = self.sequence(value, None, inner, depth + 1)
            if tag in self.wanted:
                found[tag] = items
            return after
        after = value + length
        if vr == b"SQ" or self._holds_items(value, length, coding):
            if length >= _NESTING_BYTES or tag in self.wanted:
                self.need(after)
                items, _ = self.sequence(value, after, coding, depth + 1)
                if tag in self.wanted:
                    found[tag] = items
        else:
            self.need(after)
            if depth == 0:
                self.leaves.append(Leaf(value, after, tag))
            if tag in self.wanted:
                found[tag] = self.buffer[value:after]
        self.need(after)
        return after

    def _holds_items(self, value: int, length: int, coding: _Coding) -> bool:
        if coding.explicit or length < 8 or value + 8 > len(self.buffer):
            return False
        tag, size = struct.unpack_from(f"{coding.order}2sxxI", self.buffer, value)
        item = self.buffer[value : value + 4] == struct.pack(f"{coding.order}HH", _ITEM >> 16, _ITEM & 0xFFFF)
        return bool(tag) and item and (size == UNDEFINED or size + 8 <= length)

    def sequence(self, at: int, end: int | None, coding: _Coding, depth: int) -> tuple[list[Elements], int]:
        """Items of a sequence, from `at` to `end` or to its delimiter."""
        items: list[Elements] = []
        while end is None or at < end:
            tag, _, length, value = self.header(at, coding)
            if tag == _SEQUENCE_END:
                return items, value
            if tag != _ITEM:
                raise ScanError("bad_header", "a sequence holds something that is no item")
            item, at = self.dataset(value, None if length == UNDEFINED else value + length, coding, depth)
            items.append(item)
        return items, at


def parse(buffer: bytes, *, complete: bool, wanted: frozenset[int]) -> Parsed:
    """The wanted elements of a DICOM file.

    Args:
        buffer: The first bytes of the file, or all.
        complete: The buffer is the whole file.
        wanted: Tags to keep.

    Raises:
        MoreNeeded: The header is longer than the buffer.
        ScanError: `not_dicom`, `truncated`, `nesting`, `bad_header`, `bad_transfer_syntax`, `inflated_size`.
    """
    at = 132 if buffer[128:132] == b"DICM" else 0
    warnings = () if at else ("missing_preamble",)
    syntax, start, meta = _file_meta(buffer, at, complete=complete)
    if start == at:
        warnings = (*warnings, "missing_file_meta")
    if syntax == _DEFLATED:
        if not complete:
            raise MoreNeeded
        inflated = _inflate(buffer[start:])
        return replace(_body(inflated, 0, EXPLICIT, True, wanted), syntax=syntax, warnings=warnings, inflated=inflated)
    body = _body(buffer, start, syntax, complete, wanted)
    return replace(body, warnings=warnings, leaves=(*meta, *body.leaves))


def _file_meta(buffer: bytes, at: int, *, complete: bool) -> tuple[str, int, list[Leaf]]:
    reader = ElementReader(buffer, complete=complete, wanted=frozenset())
    syntax, coding = "", _Coding(explicit=True, order="<")
    while buffer[at : at + 2] == b"\x02\x00":
        tag, _, length, value = reader.header(at, coding)
        at = value + length
        reader.need(at)
        reader.leaves.append(Leaf(value, at, tag))
        if tag == SYNTAX:
            syntax = buffer[value:at].decode("ascii", "replace").strip("\0 ")
    return syntax, at, reader.leaves


def _body(buffer: bytes, start: int, syntax: str, complete: bool, wanted: frozenset[int]) -> Parsed:
    reader = ElementReader(buffer, complete=complete, wanted=wanted)
    if complete and start >= len(buffer):
        raise ScanError("truncated", "the file ends after its meta group")
    reader.need(start + 8)
    coding = _coding(buffer[start : start + 8])
    declared = syntax or (IMPLICIT if not coding.explicit else _BIG_ENDIAN if coding.order == ">" else EXPLICIT)
    if (declared != IMPLICIT, declared == _BIG_ENDIAN) != (coding.explicit, coding.order == ">"):
        raise ScanError("bad_transfer_syntax", "the data set is not coded as its transfer syntax says")
    elements, _ = reader.dataset(start, None, coding)
    return Parsed(declared, coding.order == ">", elements, reader.pixels, (), leaves=tuple(reader.leaves))


def _coding(first: bytes) -> _Coding:
    order = "<" if first[0] or not first[1] else ">"
    group = struct.unpack_from(f"{order}H", first)[0]
    if not 0x0004 <= group <= 0x0028:
        raise ScanError("not_dicom", "what follows the mark is no DICOM data set")
    return _Coding(explicit=first[4:6] in _LONG | _SHORT, order=order)


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=-15)
    parts: list[bytes] = []
    total, cap = 0, min(_INFLATE_CAP, max(_INFLATE_FLOOR, _INFLATE_RATIO * len(data)))
    pending = data
    try:
        while not stream.eof:
            part = stream.decompress(pending, _INFLATE_STEP)
            pending = stream.unconsumed_tail
            if not part and not pending:
                break
            parts.append(part)
            total += len(part)
            if total > cap:
                raise ScanError("inflated_size", f"the deflated data set grows beyond {cap >> 20} MiB")
    except zlib.error as error:
        raise ScanError("corrupt_codestream", "the deflated data set is damaged") from error
    if not stream.eof:
        raise ScanError("truncated", "the deflated data set ends too early")
    return b"".join(parts)
