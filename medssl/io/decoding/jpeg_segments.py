"""The segments of a JPEG stream that stand before its entropy-coded data. ITU-T T.81 annex B.1.1.4."""

import struct
from collections.abc import Callable

from medssl.errors import ScanError

_SCAN = 0xDA


def read_segments(data: bytes, take: Callable[[int, bytes], None]) -> tuple[bytes, bytes]:
    """Walk over the segments up to the first scan.

    Args:
        data: A JPEG stream.
        take: Gets the code and the body of each segment before the scan.

    Returns:
        The body of the scan's header, and all that follows it.

    Raises:
        ScanError: `corrupt_codestream`.
        struct.error: The stream ends before a scan.
    """
    at = 2
    while True:
        mark, code, length = struct.unpack_from(">BBH", data, at)
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if mark != 0xFF or len(body) != length - 2:
            raise ScanError("corrupt_codestream", "a segment of the JPEG stream is damaged")
        if code == _SCAN:
            return body, data[at:]
        take(code, body)
