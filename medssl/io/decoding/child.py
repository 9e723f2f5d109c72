"""The child process that decodes compressed pixels: frames come in over a pipe, values go out; it opens no file. Trust rule 14.

Message: two big-endian 32-bit lengths, a JSON object, raw bytes. Started by `medssl.io.decoding.pool`.
"""

import json
import resource
import struct
import sys
from typing import BinaryIO

import numpy as np

from medssl.errors import ScanError
from medssl.io.decoding.codecs import FrameSpec, decode_frame

LENGTHS = struct.Struct(">II")
_MEMORY = 4 << 30
_CPU_S = 60  # for one frame


def send(stream: BinaryIO, fields: dict[str, object], payload: bytes | memoryview = b"") -> None:
    """Write one message."""
    head = json.dumps(fields).encode()
    stream.write(LENGTHS.pack(len(head), len(payload)) + head)
    stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, object], bytes]:
    """Read one message.

    Raises:
        EOFError: The other side is gone.
    """
    head_length, payload_length = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    fields: dict[str, object] = json.loads(_exactly(stream, head_length))
    return fields, _exactly(stream, payload_length)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise EOFError
    return found


def main() -> None:
    """Answer until the pipe is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _limit(resource.RLIMIT_AS, _MEMORY)
    while True:
        try:
            fields, frame = receive(sys.stdin.buffer)
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _CPU_S)
        try:
            values, contradicts = decode_frame(FrameSpec(**fields), frame)  # type: ignore[arg-type]
        except ScanError as error:
            send(sys.stdout.buffer, {"code": error.code, "message": str(error).removeprefix(f"{error.code}: ")})
        except MemoryError:
            send(sys.stdout.buffer, {"code": "too_large", "message": "the frame does not fit into the memory of the decoder"})
        else:
            send(sys.stdout.buffer, {"dtype": values.dtype.str, "contradicts": contradicts}, np.ascontiguousarray(values).data.cast("B"))


def _limit(kind: int, value: int) -> None:
    """Set the soft limit, within a hard one that is in force already."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
