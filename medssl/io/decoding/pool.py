"""Child processes that decode compressed pixels of files nobody vouches for: one that dies or hangs costs one scan. Trust rule 14."""

import atexit
import os
import queue
import select
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medssl.errors import ScanError
from medssl.io.decoding.child import receive, send
from medssl.io.decoding.codecs import FrameSpec
from medssl.volume import Array

WORKERS = min(4, os.cpu_count() or 1)
_PATIENCE_S = 90.0
_ROOT = str(Path(__file__).resolve().parents[3])
# -P: nothing is imported from the folder in which the command runs, which may be one of scans that nobody vouches for
_CHILD = """import sys
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from medssl.io.decoding.child import main
main()"""


class Decoder:
    """One child process, started when it is first needed and again after it died.

    Args:
        patience_s: Longest wait for a frame.
    """

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        self.patience_s = patience_s
        self.process: subprocess.Popen[bytes] | None = None

    def decode(self, spec: FrameSpec, frame: bytes) -> tuple[Array, bool]:
        """What `medssl.io.decoding.codecs.decode_frame` gives.

        Raises:
            ScanError: Its codes, `decoder_crashed` or `timeout`.
        """
        process = self._running()
        try:
            fields, payload = self._ask(process, spec, frame)
        except (EOFError, BrokenPipeError) as error:
            self.stop()
            raise ScanError("decoder_crashed", "the decoder of compressed pixels died on this scan") from error
        if "code" in fields:
            raise ScanError(str(fields["code"]), str(fields["message"]))
        values = np.frombuffer(payload, np.dtype(str(fields["dtype"]))).reshape(spec.rows, spec.columns)
        return values, bool(fields["contradicts"])

    def _ask(self, process: "subprocess.Popen[bytes]", spec: FrameSpec, frame: bytes) -> tuple[dict[str, object], bytes]:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        send(process.stdin, asdict(spec), frame)  # type: ignore[arg-type]
        if not select.select([process.stdout], [], [], self.patience_s)[0]:
            self.stop()
            raise ScanError("timeout", f"a frame took longer than {self.patience_s:.0f} s to decode")
        return receive(process.stdout)  # type: ignore[arg-type]

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is not None and self.process.poll() is not None:
            self.stop()
        if self.process is None:
            # its output on stderr may hold values of tags
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, _ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        return self.process

    def stop(self) -> None:
        """End the child process."""
        if self.process is not None:
            self.process.kill()
            with suppress(BrokenPipeError):
                self.process.communicate()
            self.process = None


class _Pool:
    """Decoders that threads borrow."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.all = [Decoder() for _ in range(WORKERS)]
        self.idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for decoder in self.all:
            self.idle.put(decoder)

    def stop(self) -> None:
        for decoder in self.all:
            decoder.stop()


_pool: _Pool | None = None
_lock = threading.Lock()


def decode_safely(spec: FrameSpec, frame: bytes) -> tuple[Array, bool]:
    """A frame decoded in a child process with limits on memory and time; threads get as many children as there are processors.

    Raises:
        ScanError: The codes of `medssl.io.decoding.codecs.decode_frame`, `decoder_crashed` or `timeout`.
    """
    pool = _current_pool()
    decoder = pool.idle.get()
    try:
        return decoder.decode(spec, frame)
    finally:
        pool.idle.put(decoder)


def _current_pool() -> _Pool:
    global _pool
    with _lock:
        if _pool is None or _pool.owner != os.getpid():  # a forked process starts its own
            _pool = _Pool()
            atexit.register(_pool.stop)
        return _pool
