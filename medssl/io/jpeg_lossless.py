"""Lossless JPEG (ITU-T T.81 annex H), one component: the compression that hospital archives use most and pydicom cannot decode.

Every bit is accounted for: a stream that ends early, has bits left over or holds a code that its table lacks is refused. libjpeg-turbo
(through imagecodecs) is three hundred times faster but fills such a stream up in silence, so its samples are encoded again and taken only
where that gives the very bits of the stream; otherwise, and where it is not installed, the stream is decoded here.
"""

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError

_PEEK = 16  # the longest Huffman code, in bits
_MODULUS = 1 << 16
_SPAN = 5  # bytes that hold 31 bits from anywhere in the first of them
_BLOCK = 1 << 14  # differences whose temporary arrays stay in the cache
_FRAME, _TABLES, _SCAN, _RESTART, _END = 0xC3, 0xC4, 0xDA, 0xDD, 0xD9

Codes = list[tuple[int, int]]  # by the next 16 bits: length of the code, size of the difference; length 0 is no code


@dataclass
class _Stream:
    """What the segments before the entropy-coded data say."""

    precision: int = 0
    rows: int = 0
    columns: int = 0
    interval: int = 0
    tables: dict[int, Codes] = field(default_factory=dict)


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
    stream, at = _Stream(), 2
    while True:
        mark, code, length = struct.unpack_from(">BBH", data, at)
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if mark != 0xFF or len(body) != length - 2:
            raise ScanError("corrupt_codestream", "a segment of the lossless JPEG stream is damaged")
        if code == _SCAN:
            break
        _segment(stream, code, body)
    components, _, selector, predictor, _, shift = struct.unpack_from(">BBBBBB", body)
    if components != 1 or not 1 <= predictor <= 7 or not stream.rows or shift & 0xF >= stream.precision:
        raise ScanError("corrupt_codestream", "the scan header of the lossless JPEG stream has no meaning")
    codes = stream.tables.get(selector >> 4)
    if codes is None:
        raise ScanError("corrupt_codestream", "the lossless JPEG stream lacks its Huffman table")
    parts = _parts(data[at:])
    start = 1 << (stream.precision - (shift & 0xF) - 1)
    fast = _fast(data) if len(parts) == 1 and not shift & 0xF else None
    if fast is not None and fast.shape == (stream.rows, stream.columns):
        fast_differences = _encoded(fast.astype(np.int64), start, predictor)
        if is_encoding(parts[0], fast_differences, codes):
            return fast.astype(np.uint16)
    differences = _differences(parts, stream, codes)
    samples: NDArray[np.int64] = _restored(differences, stream, start, predictor) << (shift & 0xF)
    wrapped: NDArray[np.int64] = samples % _MODULUS
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


def _encoded(samples: NDArray[np.int64], start: int, predictor: int) -> NDArray[np.int64]:
    """Differences `(rows, columns)` of samples from their predictions, -32767 to 32768 (table H.1 and H.1.2.1)."""
    a, b, c = samples[1:, :-1], samples[:-1, 1:], samples[:-1, :-1]
    expected = np.empty_like(samples)
    expected[0, 0], expected[0, 1:], expected[1:, 0] = start, samples[0, :-1], samples[:-1, 0]
    expected[1:, 1:] = a if predictor == 1 else _predicted(predictor, a, b, c)
    differences: NDArray[np.int64] = (samples - expected + _MODULUS // 2 - 1 & _MODULUS - 1) - (_MODULUS // 2 - 1)
    return differences


def is_encoding(part: bytes, differences: NDArray[np.int64], codes: Codes) -> bool:
    """Whether entropy-coded data are the encoding of these differences, bit by bit, up to the padding of the last byte.

    Args:
        part: Data without stuffed zeros.
        differences: In the order of the stream, -32767 to 32768.
        codes: The Huffman table.
    """
    lengths, words = _by_size(codes)
    flat = differences.ravel()
    packed = np.zeros(len(part) + _SPAN, np.uint8)
    end = 0  # in bits
    for first in range(0, flat.size, _BLOCK):
        block = flat[first : first + _BLOCK]
        sizes = np.frexp(np.abs(block).astype(np.float64))[1]  # bits of the magnitude; 0 for 0
        extra = np.where(sizes == 16, 0, sizes)  # T.81 table H.2: no bits follow
        widths = lengths[sizes] + extra  # at most 31
        ends = end + np.cumsum(widths)
        if not lengths[sizes].all() or ends[-1] > 8 * len(part):
            return False
        bits = np.where(block < 0, block - 1, block) & ((1 << extra) - 1)
        _pack(packed, words[sizes] << extra | bits, ends - widths, widths)
        end = int(ends[-1])
    padding = 8 * len(part) - end
    given, made = np.frombuffer(part, np.uint8), packed[: len(part)]
    return padding < 8 and bool(np.array_equal(made[:-1], given[:-1]) and made[-1] >> padding == given[-1] >> padding)


def _pack(packed: NDArray[np.uint8], values: NDArray[np.int64], starts: NDArray[np.int64], widths: NDArray[np.int64]) -> None:
    """Put values of some bits, one behind the other, into bytes that hold nothing there yet."""
    base = int(starts[0]) >> 3
    span = (int(starts[-1]) >> 3) - base + _SPAN
    placed = values << (8 * _SPAN - (starts & 7) - widths)  # in five bytes from the one where the value begins
    total = np.zeros(span)
    for number in range(_SPAN):
        total += np.bincount((starts >> 3) - base + number, placed >> (8 * (_SPAN - 1 - number)) & 0xFF, minlength=span)
    packed[base : base + span] |= total.astype(np.uint8)


def _by_size(codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length and code of each size 0 to 16; length 0 where the table has none. Codes come in rising order, spread over their window."""
    lengths, words = np.zeros(17, np.int64), np.zeros(17, np.int64)
    at = 0
    while at < len(codes) and codes[at][0]:
        length, size = codes[at]
        lengths[size], words[size] = length, at >> (_PEEK - length)
        at += 1 << (_PEEK - length)
    return lengths, words


def _segment(stream: _Stream, code: int, body: bytes) -> None:
    if code == _FRAME:
        stream.precision, stream.rows, stream.columns, components = struct.unpack_from(">BHHB", body)
        if components != 1:
            raise ScanError("bad_datatype", "the compressed stream is in colour")
        if not 2 <= stream.precision <= 16:
            raise ScanError("corrupt_codestream", "the precision of the lossless JPEG stream has no meaning")
    elif code == _TABLES:
        while len(body) > 17:
            counts = body[1:17]
            stream.tables[body[0] & 0xF] = _codes(counts, body[17 : 17 + sum(counts)])
            body = body[17 + sum(counts) :]
    elif code == _RESTART:
        stream.interval = struct.unpack_from(">H", body)[0]


@lru_cache(maxsize=8)  # the slices of a series share their table
def _codes(counts: bytes, sizes: bytes) -> Codes:
    table: Codes = [(0, 0)] * (1 << _PEEK)
    code, used = 0, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            first, span = code << (_PEEK - length), 1 << (_PEEK - length)
            if sizes[used] > 16 or first + span > len(table):
                raise ScanError("corrupt_codestream", "a Huffman table has no meaning")
            table[first : first + span] = [(length, sizes[used])] * span
            code, used = code + 1, used + 1
        code <<= 1
    return table


def _parts(data: bytes) -> list[bytes]:
    """Entropy-coded data between restart marks, without stuffed zeros; they must end with the end mark."""
    parts, start, at = [], 0, 0
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise ScanError("corrupt_codestream", "the lossless JPEG stream has no end mark")
        code = data[at + 1]
        if code == 0:
            at += 2
        elif code == 0xFF:
            at += 1
        elif code == _END or 0xD0 <= code <= 0xD7:
            parts.append(data[start:at].replace(b"\xff\x00", b"\xff"))
            start = at = at + 2
            if code == _END:
                return parts
        else:
            raise ScanError("corrupt_codestream", "a mark stands inside the entropy-coded data")


def _differences(parts: list[bytes], stream: _Stream, codes: Codes) -> NDArray[np.int64]:
    total = stream.rows * stream.columns
    interval = stream.interval or total
    if len(parts) != -(-total // interval) or interval % stream.columns:
        raise ScanError("corrupt_codestream", "the lossless JPEG stream has another number of restart intervals")
    found: list[int] = []
    for part in parts:
        found += _huffman(part, min(interval, total - len(found)), codes)
    return np.array(found, dtype=np.int64).reshape(stream.rows, stream.columns)


def _huffman(part: bytes, count: int, codes: Codes) -> list[int]:
    found = []
    padded, limit = part + b"\0" * 8, 8 * len(part)
    at = 0  # in bits
    for _ in range(count):
        byte = at >> 3
        window = int.from_bytes(padded[byte : byte + 5], "big") << (at & 7)
        length, size = codes[window >> 24 & 0xFFFF]
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


_Number = TypeVar("_Number", int, NDArray[np.int64])


def _predicted(predictor: int, a: _Number, b: _Number, c: _Number) -> _Number:
    """Table H.1 of T.81: a is left, b above, c above left."""
    return (a, b, c, a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)[predictor - 1]
