import struct

import pytest

from medssl.errors import ScanError
from medssl.io.decoding.jpeg_segments import read_segments


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


STREAM = b"\xff\xd8" + segment(0xC4, b"tables") + segment(0xDD, b"ab") + segment(0xDA, b"header") + b"the rest"


def test_segments_are_handed_over_in_their_order_and_the_scan_is_given_back() -> None:
    taken: list[tuple[int, bytes]] = []
    assert read_segments(STREAM, lambda code, body: taken.append((code, body))) == (b"header", b"the rest")
    assert taken == [(0xC4, b"tables"), (0xDD, b"ab")]


@pytest.mark.parametrize("stream", [STREAM[:10], STREAM.replace(b"\xff\xdd", b"\x00\xdd")])  # cut within a body, no mark
def test_a_damaged_segment_is_refused(stream: bytes) -> None:
    with pytest.raises(ScanError, match="a segment of the JPEG stream is damaged"):
        read_segments(stream, lambda *_: None)
