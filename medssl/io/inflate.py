"""Compressed streams, inflated in bounded steps; checksum and length are checked where the end is reached. Trust rule 11."""

import bz2
import zlib
from typing import Literal

from medssl.errors import ScanError

Kind = Literal["gzip", "zlib", "bzip2"]

_SLACK = 1 << 20  # bytes read after what was wanted, to reach the checksum
_BOMB_BYTES, _BOMB_RATIO = 256 << 20, 200
_DRAIN, _DRAIN_STEP = 16 << 20, 1 << 20
_GZIP = b"\x1f\x8b"


class Inflater:
    """A gzip, zlib or bzip2 stream; members of gzip that follow one another are one stream.

    Args:
        raw: The stream, and whatever follows it.
        kind: Its format; `zlib` takes gzip as well, as MetaImage does.
    """

    def __init__(self, raw: bytes, kind: Kind = "gzip") -> None:
        self.kind = kind
        self.size = len(raw)
        self.pending = raw
        self.ended = False
        self.stream = self._opened()

    def _opened(self) -> "bz2.BZ2Decompressor | zlib._Decompress":
        if self.kind == "bzip2":
            return bz2.BZ2Decompressor()
        return zlib.decompressobj(wbits=31 if self.kind == "gzip" else 47)

    def check_ratio(self, declared: int) -> None:
        """Refuse a stream that is far too short for what it declares, before it is inflated.

        Raises:
            ScanError: `inflated_size`.
        """
        if declared >= _BOMB_BYTES and declared > _BOMB_RATIO * self.size:
            raise ScanError("inflated_size", f"{self.size >> 10} KiB of compressed data declare {declared >> 20} MiB")

    def take(self, limit: int) -> bytes:
        """At most `limit` further bytes, fewer at the end of the stream.

        Raises:
            ScanError: `corrupt_gzip`, or `truncated` where the input ends first.
        """
        parts: list[bytes] = []
        left = limit
        while left > 0 and not self.ended:
            part = self._step(left)
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _step(self, limit: int) -> bytes:
        try:
            part = self.stream.decompress(self.pending, limit)
        except (zlib.error, OSError) as error:
            raise ScanError("corrupt_gzip", "the compressed stream is damaged, its checksum or length is wrong") from error
        self.pending = b"" if isinstance(self.stream, bz2.BZ2Decompressor) else self.stream.unconsumed_tail
        if self.stream.eof:
            self._next_member()
        elif not part and not self.pending:
            raise ScanError("truncated", "the compressed stream ends too early")
        return part

    def _next_member(self) -> None:
        self.pending = self.stream.unused_data
        if self.kind == "gzip" and self.pending.startswith(_GZIP):
            self.stream = self._opened()
        else:
            self.ended = True

    def drain(self) -> None:
        """Inflate on and keep nothing: where a header has no meaning, a damaged stream is the better reason.

        Raises:
            ScanError: `corrupt_gzip`, `truncated`.
        """
        for _ in range(_DRAIN // _DRAIN_STEP):
            self.take(_DRAIN_STEP)

    def rest(self, size: int) -> tuple[bytes, bool]:
        """The next `size` bytes, and whether anything follows them.

        Raises:
            ScanError: `corrupt_gzip`, `truncated`.
        """
        data = self.take(size)
        more = bool(self.take(_SLACK)) or not self.ended
        if len(data) < size:
            raise ScanError("truncated", f"the compressed stream ends {size - len(data)} bytes before its voxels do")
        return data, more or bool(self.pending)
