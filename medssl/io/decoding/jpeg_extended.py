"""Sequential JPEG with 12 bits (ITU-T T.81 annex F, process 4), one component: no decoder with a free licence in Python reads it.

Every bit is accounted for, as in `medssl.io.decoding.jpeg_lossless`. Values are those of the integer transform that nearly all decoders of
DICOM have (the accurate one of the Independent JPEG Group), bit by bit.
"""

import struct
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_segments import read_segments

_PEEK = 16  # the longest Huffman code, in bits
_QUANTISATION, _HUFFMAN, _RESTART, _END = 0xDB, 0xC4, 0xDD, 0xD9
_FRAMES = frozenset({0xC0, 0xC1})
_PRECISION = 12
_ROUND_COLUMNS, _ROUND_ROWS = 12, 17  # bits of fraction that each pass of the transform drops
_ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at % 8 if (at // 8 + at % 8) % 2 == 0 else at // 8))

Codes = list[tuple[int, int]]  # by the next 16 bits: length of the code, its symbol; length 0 is no code


def _transform() -> NDArray[np.int64]:
    """Inverse DCT of 8 values, times 8192 and rounded: half of each column, the other half is its mirror or minus that."""
    columns = [
        (8192, 8192, 8192, 8192),
        (11363, 9633, 6437, 2260),
        (10703, 4433, -4433, -10703),
        (9633, -2259, -11362, -6436),
        (8192, -8192, -8192, 8192),
        (6437, -11362, 2261, 9633),
        (4433, -10704, 10704, -4433),
        (2260, -6436, 9633, -11363),
    ]
    half = np.array(columns, dtype=np.int64).T  # (4, 8): outputs 0 to 3
    return np.concatenate([half, half[::-1] * np.tile([1, -1], 4)])


_INVERSE = _transform()


@dataclass
class _Stream:
    """What the segments before the entropy-coded data say; Huffman tables by class and number."""

    precision: int = 0
    rows: int = 0
    columns: int = 0
    interval: int = 0
    quantisation_table: int = 0
    quantisation: dict[int, list[int]] = field(default_factory=dict)
    tables: dict[int, Codes] = field(default_factory=dict)


def decode_extended(data: bytes) -> NDArray[np.uint16]:
    """Samples `(rows, columns)` of a sequential JPEG stream with 12 bits and one component.

    Raises:
        ScanError: `corrupt_codestream`, `bad_datatype` for colour, `unsupported_bits` for another precision.
    """
    try:
        return _decode(data)
    except (struct.error, IndexError) as error:
        raise ScanError("corrupt_codestream", "the JPEG stream is cut") from error


def _decode(data: bytes) -> NDArray[np.uint16]:
    stream = _Stream()
    body, entropy_coded = read_segments(data, partial(_segment, stream))
    components, _, selector, first, last, approximation = struct.unpack_from(">BBBBBB", body)
    # an encoder that is met in archives writes 0 for the last coefficient, which a sequential stream cannot mean
    if components != 1 or first or last not in (0, 63) or approximation or not stream.rows or not stream.columns:
        raise ScanError("corrupt_codestream", "the scan header of the JPEG stream has no meaning")
    tables = stream.tables.get(selector >> 4), stream.tables.get(0x10 | selector & 0xF)
    quantisation = stream.quantisation.get(stream.quantisation_table)
    if tables[0] is None or tables[1] is None or quantisation is None:
        raise ScanError("corrupt_codestream", "the JPEG stream lacks one of its tables")
    coefficients = _coefficients(_parts(entropy_coded), stream, tables[0], tables[1])
    return _samples(coefficients * np.array(quantisation), stream)


def _segment(stream: _Stream, code: int, body: bytes) -> None:
    if code in _FRAMES:
        stream.precision, stream.rows, stream.columns, components = struct.unpack_from(">BHHB", body)
        if components != 1:
            raise ScanError("bad_datatype", "the compressed stream is in colour")
        if stream.precision != _PRECISION:
            raise ScanError("unsupported_bits", f"the stream has {stream.precision} bits, {_PRECISION} are read")
        stream.quantisation_table = body[8]
    elif code == _QUANTISATION:
        while body:
            layout = ">64H" if body[0] >> 4 else ">64B"
            stream.quantisation[body[0] & 0xF] = list(struct.unpack_from(layout, body, 1))
            body = body[1 + struct.calcsize(layout) :]
    elif code == _HUFFMAN:
        while body:
            counts = body[1:17]
            stream.tables[body[0]] = _codes(counts, body[17 : 17 + sum(counts)])
            body = body[17 + sum(counts) :]
    elif code == _RESTART:
        stream.interval = struct.unpack_from(">H", body)[0]


def _codes(counts: bytes, symbols: bytes) -> Codes:
    table: Codes = [(0, 0)] * (1 << _PEEK)
    code, used = 0, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            first, span = code << (_PEEK - length), 1 << (_PEEK - length)
            if first + span > len(table):
                raise ScanError("corrupt_codestream", "a Huffman table has no meaning")
            table[first : first + span] = [(length, symbols[used])] * span
            code, used = code + 1, used + 1
        code <<= 1
    return table


def _parts(data: bytes) -> list[bytes]:
    """Entropy-coded data between restart marks, without stuffed zeros; they must end with the end mark."""
    parts: list[bytes] = []
    start, at = 0, 0
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise ScanError("corrupt_codestream", "the JPEG stream has no end mark")
        code = data[at + 1]
        if code == 0:
            at += 2
        elif code == 0xFF:
            at += 1
        elif code == _END or code == 0xD0 + len(parts) % 8:
            parts.append(data[start:at].rstrip(b"\xff").replace(b"\xff\x00", b"\xff") if start < at else b"")
            start = at = at + 2
            if code == _END:
                return parts
        else:
            raise ScanError("corrupt_codestream", "a mark stands inside the entropy-coded data, or out of turn")


def _coefficients(parts: list[bytes], stream: _Stream, first: Codes, rest: Codes) -> NDArray[np.int64]:
    """Quantised coefficients `(blocks, 64)` in the order of the stream."""
    total = -(-stream.rows // 8) * -(-stream.columns // 8)
    interval = stream.interval or total
    if len(parts) != -(-total // interval):
        raise ScanError("corrupt_codestream", "the JPEG stream has another number of restart intervals")
    found: list[list[int]] = []
    for part in parts:
        found += _blocks(part, min(interval, total - len(found)), first, rest)
    return np.array(found, dtype=np.int64)


def _blocks(part: bytes, count: int, first: Codes, rest: Codes) -> list[list[int]]:
    reader = _Bits(part)
    blocks, mean = [], 0
    for _ in range(count):
        block = [0] * 64
        _, difference = reader.value(first)
        mean += difference
        block[0] = mean
        at = 1
        while at < 64:
            run, value = reader.value(rest)
            if value == 0 and run < 15:
                if run:
                    raise ScanError("corrupt_codestream", "the JPEG stream holds a run without a value")
                break
            at += run
            if at > 63:
                raise ScanError("corrupt_codestream", "a block of the JPEG stream has more than 64 values")
            block[at] = value
            at += 1
        blocks.append(block)
    reader.finish()
    return blocks


class _Bits:
    """Huffman codes, each followed by the bits of its value."""

    def __init__(self, part: bytes) -> None:
        self.limit = 8 * len(part)
        self.padded = part + b"\0" * 8
        self.at = 0  # in bits

    def value(self, codes: Codes) -> tuple[int, int]:
        """The upper half of the next symbol, and the value whose length its lower half tells."""
        byte = self.at >> 3
        window = int.from_bytes(self.padded[byte : byte + 5], "big") << (self.at & 7) & 0xFFFFFFFFFF
        length, symbol = codes[window >> 24]
        size = symbol & 0xF
        self.at += length + size
        if not length or self.at > self.limit:
            raise ScanError("corrupt_codestream", "the JPEG stream holds a code that its table lacks, or ends early")
        if not size:
            return symbol >> 4, 0
        bits = (window >> (40 - length - size)) & ((1 << size) - 1)
        return symbol >> 4, bits if bits >> (size - 1) else bits - (1 << size) + 1

    def finish(self) -> None:
        """Check that no byte is left over."""
        if self.limit - self.at >= 8:
            raise ScanError("corrupt_codestream", f"{self.limit - self.at} bits of the JPEG stream are left over")


def _samples(coefficients: NDArray[np.int64], stream: _Stream) -> NDArray[np.uint16]:
    blocks = np.empty_like(coefficients)
    blocks[:, _ZIGZAG] = coefficients
    blocks = blocks.reshape(-1, 8, 8)  # (blocks, vertical, horizontal)
    blocks = _INVERSE @ blocks + (1 << (_ROUND_COLUMNS - 1)) >> _ROUND_COLUMNS
    blocks = blocks @ _INVERSE.T + (1 << (_ROUND_ROWS - 1)) >> _ROUND_ROWS
    samples: NDArray[np.uint16] = np.clip(blocks + (1 << (_PRECISION - 1)), 0, (1 << _PRECISION) - 1).astype(np.uint16)
    high, wide = -(-stream.rows // 8), -(-stream.columns // 8)
    picture = samples.reshape(high, wide, 8, 8).transpose(0, 2, 1, 3).reshape(8 * high, 8 * wide)
    return picture[: stream.rows, : stream.columns]
