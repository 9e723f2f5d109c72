"""Lossless JPEG (ITU-T T.81 annex H), one component: the compression that hospital archives use most and pydicom cannot decode.

Every bit is accounted for: a stream that ends early, has bits left over or holds a code that its table lacks is refused. libjpeg-turbo
(through imagecodecs) is three hundred times faster but fills such a stream up in silence, so its samples are taken only where
their code stands at its place in the stream, each bit of it; otherwise, and where it is not installed, the stream is decoded here.
"""

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_segments import read_segments

_PEEK = 16  # the longest Huffman code, in bits
_MODULUS = 1 << 16
_SPAN = 8  # bytes of a window, which holds 31 bits from anywhere in its first byte
_BLOCK = 1 << 14  # differences whose temporary arrays stay in the cache
_MARK = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)  # a stuffed zero makes none, and fill bytes may stand before it
_FRAME, _TABLES, _RESTART, _END = 0xC3, 0xC4, 0xDD, 0xD9


class HuffmanTable:
    """The codes of a table.

    Args:
        counts: How many codes of each length 1 to 16 there are.
        sizes: The size of the difference that each code stands for, shortest code first.

    Raises:
        ScanError: `corrupt_codestream`.
    """

    def __init__(self, counts: bytes, sizes: bytes) -> None:
        self.by_window: list[tuple[int, int]] = [(0, 0)] * (1 << _PEEK)  # next 16 bits: length of the code, size; length 0 is no code
        self.codes: dict[int, tuple[int, int]] = {}  # size: length, code
        code, used = 0, 0
        for length, count in enumerate(counts, start=1):
            for _ in range(count):
                first, span = code << (_PEEK - length), 1 << (_PEEK - length)
                if sizes[used] > 16 or first + span > len(self.by_window):
                    raise ScanError("corrupt_codestream", "a Huffman table has no meaning")
                self.by_window[first : first + span] = [(length, sizes[used])] * span
                self.codes[sizes[used]] = length, code
                code, used = code + 1, used + 1
            code <<= 1

    @cached_property
    def by_difference(self) -> NDArray[np.uint64]:
        """For each difference modulo 65536: its code and extra bits, times 256, plus their number; 0 where the table has no code for it."""
        entries = np.zeros(_MODULUS, np.uint64)
        for size, (length, code) in self.codes.items():
            if size in (0, 16):  # T.81 table H.2: no bits follow
                entries[size >> 4 << 15] = code << 8 | length
                continue
            half = 1 << (size - 1)
            words = ((code << size) + np.arange(2 * half, dtype=np.uint64)) << 8 | np.uint64(length + size)
            entries[_MODULUS - 2 * half + 1 : _MODULUS - half + 1] = words[:half]  # below zero
            entries[half : 2 * half] = words[half:]
        return entries


@dataclass
class _Stream:
    """What the segments before the entropy-coded data say."""

    precision: int = 0
    rows: int = 0
    columns: int = 0
    interval: int = 0
    tables: dict[int, HuffmanTable] = field(default_factory=dict)


def decode_lossless(data: bytes) -> NDArray[np.uint16]:
    """Samples `(rows, columns)` of a lossless JPEG stream with one component.

    Raises:
        ScanError: `corrupt_codestream`, `bad_datatype` for colour.
    """
    try:
        return _decode(data)
    except (struct.error, IndexError) as error:
        raise ScanError("corrupt_codestream", "the lossless JPEG stream is cut") from error


def _decode(data: bytes) -> NDArray[np.uint16]:
    stream = _Stream()
    body, entropy_coded = read_segments(data, partial(_segment, stream))
    components, _, selector, predictor, _, shift = struct.unpack_from(">BBBBBB", body)
    if components != 1 or not 1 <= predictor <= 7 or not stream.rows * stream.columns or shift & 0xF >= stream.precision:
        raise ScanError("corrupt_codestream", "the scan header of the lossless JPEG stream has no meaning")
    table = stream.tables.get(selector >> 4)
    if table is None:
        raise ScanError("corrupt_codestream", "the lossless JPEG stream lacks its Huffman table")
    parts = _parts(entropy_coded)
    start = 1 << (stream.precision - (shift & 0xF) - 1)
    fast = _fast(data) if len(parts) == 1 and not shift & 0xF else None
    if fast is not None and fast.shape == (stream.rows, stream.columns):
        samples = fast.astype(np.uint16)
        if is_encoding(parts[0], encoded_differences(samples, start, predictor), table):
            return samples
    differences = _differences(parts, stream, table)
    wrapped: NDArray[np.int64] = (_restored(differences, stream, start, predictor) << (shift & 0xF)) % _MODULUS
    return wrapped.astype(np.uint16)


def _fast(data: bytes) -> NDArray[np.generic] | None:
    """What libjpeg-turbo makes of the stream, which may be wrong; None where it refuses it or is not installed."""
    try:
        import imagecodecs
    except ImportError:
        return None
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data))
    except (RuntimeError, ValueError, TypeError):  # its Jpeg8Error is a RuntimeError
        return None


def encoded_differences(samples: NDArray[np.uint16], start: int, predictor: int) -> NDArray[np.uint16]:
    """Differences `(rows, columns)` of samples from their predictions, modulo 65536 (table H.1 and H.1.2.1).

    Args:
        samples: Rows and columns of one frame.
        start: The prediction of the first sample.
        predictor: 1 to 7.
    """
    differences = samples.copy()
    differences[:1, :1] -= np.uint16(start)
    differences[0, 1:] -= samples[0, :-1]
    differences[1:, 0] -= samples[:-1, 0]
    if predictor == 1:
        differences[1:, 1:] -= samples[1:, :-1]
    else:
        wide = samples.astype(np.int32)
        differences[1:, 1:] -= _predicted(predictor, wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]).astype(np.uint16)
    return differences


def is_encoding(part: bytes, differences: NDArray[np.uint16], table: HuffmanTable) -> bool:
    """Whether entropy-coded data are the encoding of these differences, bit by bit, up to the padding of the last byte.

    The code of each difference is looked for where the codes before it end, so one wrong bit anywhere is seen.

    Args:
        part: Data without stuffed zeros.
        differences: In the order of the stream, modulo 65536.
        table: The Huffman table.
    """
    padded = part + b"\0" * _SPAN
    windows = np.ndarray(len(part) + 1, ">u8", padded, strides=(1,)).astype(np.uint64)  # the eight bytes from each byte on
    flat = differences.ravel()
    end = 0  # in bits
    for first in range(0, flat.size, _BLOCK):
        entries = table.by_difference[flat[first : first + _BLOCK]]
        widths = (entries & 0xFF).view(np.int64)  # at most 31
        starts = np.cumsum(widths)
        starts += end - widths
        if not widths.all() or starts[-1] + widths[-1] > 8 * len(part):
            return False
        end = int(starts[-1] + widths[-1])
        found = windows[starts >> 3]
        found <<= (starts & 7).view(np.uint64)
        found >>= (64 - widths).view(np.uint64)
        if not np.array_equal(found, entries >> 8):
            return False
    return 8 * len(part) - end < 8


def _segment(stream: _Stream, code: int, body: bytes) -> None:
    if code == _FRAME:
        if stream.precision:
            raise ScanError("corrupt_codestream", "the lossless JPEG stream has two frame headers")
        stream.precision, stream.rows, stream.columns, components = struct.unpack_from(">BHHB", body)
        if components != 1:
            raise ScanError("bad_datatype", "the compressed stream is in colour")
        if not 2 <= stream.precision <= 16:
            raise ScanError("corrupt_codestream", "the precision of the lossless JPEG stream has no meaning")
    elif code == _TABLES:
        while len(body) > 17:
            counts = body[1:17]
            stream.tables[body[0] & 0xF] = _table(counts, body[17 : 17 + sum(counts)])
            body = body[17 + sum(counts) :]
    elif code == _RESTART:
        stream.interval = struct.unpack_from(">H", body)[0]


_table = lru_cache(maxsize=8)(HuffmanTable)  # the slices of a series may share theirs


def _parts(data: bytes) -> list[bytes]:
    """Entropy-coded data between restart marks, without stuffed zeros; they must end with the end mark."""
    parts, start = [], 0
    for mark in _MARK.finditer(data):
        code = mark[1][0]
        if code != _END and not 0xD0 <= code <= 0xD7:
            raise ScanError("corrupt_codestream", "a mark stands inside the entropy-coded data")
        parts.append(data[start : mark.start()].replace(b"\xff\x00", b"\xff"))
        start = mark.end()
        if code == _END:
            return parts
    raise ScanError("corrupt_codestream", "the lossless JPEG stream has no end mark")


def _differences(parts: list[bytes], stream: _Stream, table: HuffmanTable) -> NDArray[np.int64]:
    total = stream.rows * stream.columns
    interval = stream.interval or total
    if len(parts) != -(-total // interval) or interval % stream.columns:
        raise ScanError("corrupt_codestream", "the lossless JPEG stream has another number of restart intervals")
    found: list[int] = []
    for part in parts:
        found += _huffman(part, min(interval, total - len(found)), table)
    return np.array(found, dtype=np.int64).reshape(stream.rows, stream.columns)


def _huffman(part: bytes, count: int, table: HuffmanTable) -> list[int]:
    found, by_window = [], table.by_window
    padded, limit = part + b"\0" * 8, 8 * len(part)
    at = 0  # in bits
    for _ in range(count):
        byte = at >> 3
        window = int.from_bytes(padded[byte : byte + 5], "big") << (at & 7)
        length, size = by_window[window >> 24 & 0xFFFF]
        if not length or at + length > limit:
            raise ScanError("corrupt_codestream", "the lossless JPEG stream holds a code that its table lacks, or ends early")
        at += length
        if size == 16:
            found.append(1 << 15)  # T.81 table H.2: no further bits follow
            continue
        if size:
            byte = at >> 3
            bits = (int.from_bytes(padded[byte : byte + 4], "big") << (at & 7) & 0xFFFFFFFF) >> (32 - size)
            found.append(bits if bits >> (size - 1) else bits - (1 << size) + 1)
            at += size
        else:
            found.append(0)
    if at > limit or limit - at >= 8:
        raise ScanError("corrupt_codestream", f"{limit - at} bits of the lossless JPEG stream are left over")
    return found


def _restored(differences: NDArray[np.int64], stream: _Stream, start: int, predictor: int) -> NDArray[np.int64]:
    step = stream.interval // stream.columns or stream.rows
    blocks = [_block(differences[row : row + step], start, predictor) for row in range(0, stream.rows, step)]
    return np.concatenate(blocks) % _MODULUS


def _block(differences: NDArray[np.int64], start: int, predictor: int) -> NDArray[np.int64]:
    """Samples from differences: the first row from the left, the first column from above, the rest by the predictor (table H.1)."""
    if predictor == 1:
        column = np.cumsum(differences[:, 0]) + start
        return np.concatenate([column[:, None], column[:, None] + np.cumsum(differences[:, 1:], axis=1)], axis=1)
    rows = [(np.cumsum(differences[0]) + start) % _MODULUS]
    for deltas in differences[1:].tolist():
        above = rows[-1].tolist()
        current = [(deltas[0] + above[0]) % _MODULUS]
        for at in range(1, len(deltas)):
            a, b, c = current[-1], above[at], above[at - 1]
            current.append((deltas[at] + _predicted(predictor, a, b, c)) % _MODULUS)
        rows.append(np.array(current, dtype=np.int64))
    return np.stack(rows)


_Number = TypeVar("_Number", int, NDArray[np.int32])


def _predicted(predictor: int, a: _Number, b: _Number, c: _Number) -> _Number:
    """Table H.1 of T.81: a is left, b above, c above left."""
    match predictor:
        case 1:
            return a
        case 2:
            return b
        case 3:
            return c
        case 4:
            return a + b - c
        case 5:
            return a + (b - c >> 1)
        case 6:
            return b + (a - c >> 1)
    return a + b >> 1
