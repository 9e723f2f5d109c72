"""Functions over many tasks in processes of their own: a dead process costs its task, an interrupted run leaves no process behind."""

import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self, TypeVar

from medssl.errors import ConfigError, MedSSLError

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE_S = 2.0  # what takes less is done sooner than processes start
_READY = "ready"
# -P: nothing is imported from the folder in which the command runs, which may be one of scans that nobody vouches for
_CHILD = """import sys
if sys.argv[2] not in sys.path:
    sys.path.insert(0, sys.argv[2])
from medssl.workers import work
work()"""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # there is a worker a core


class Crash:
    """Stands for the result of a task whose process died twice."""


@dataclass(frozen=True)
class _Failed:
    """An exception of a worker, in parts that any process can read: the kind and arguments of a MedSSLError, or the trace of a bug."""

    kind: type[MedSSLError] | None
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, error: MedSSLError) -> "_Failed":
        code, text = getattr(error, "code", ""), str(error)
        return cls(type(error), (code, text.removeprefix(f"{code}: ")) if code else (text,))

    def again(self) -> Exception:
        """The exception, to be raised in this process."""
        return self.kind(*self.arguments) if self.kind else RuntimeError(f"a worker failed:\n{self.arguments[0]}")


class _Worker:
    """A process and the pipe to it; `index` is the number of the task that it is busy with.

    It is a Python of its own that imports nothing of the main script, so a script needs no guard, and it shares no lock with threads here.
    """

    def __init__(self) -> None:
        self.index: int | None = None
        self.is_ready = False
        self.pipe, there = multiprocessing.Pipe()
        command = [sys.executable, "-P", "-c", _CHILD, str(there.fileno()), str(Path(__file__).resolve().parents[1])]
        # A session of its own: Ctrl-C reaches the command, which then ends its workers.
        self.process = subprocess.Popen(command, pass_fds=[there.fileno()], start_new_session=True, env=os.environ | _ONE_THREAD)
        there.close()
        with suppress(OSError):
            self.pipe.send(sys.path)

    def give(self, index: int, function: Callable[[Task], Any], tasks: Sequence[Task]) -> None:
        """Let it do a task; that it died meanwhile is seen when its answer is awaited."""
        self.index = index
        with suppress(OSError):
            self.pipe.send((function, tasks[index]))

    def answer(self) -> Any:  # noqa: ANN401 - whatever the function gives
        """What the function gave, or a `Crash`; the worker is then free."""
        self.index = None
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            if not self.is_ready:
                raise MedSSLError("worker processes do not start on this machine; run the command again with --workers 1") from error
            return Crash()
        self.is_ready = True
        if isinstance(answer, _Failed):
            raise answer.again()
        return answer

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Processes that are started when there is work for them, and ended with the `with` block.

    Args:
        workers: Processes; None takes one a core.
        patience_s: Work that is done sooner than this starts no process, nor does a rest that will be.

    Raises:
        ConfigError: `workers` is below 1.
    """

    def __init__(self, workers: int | None = None, *, patience_s: float = _PATIENCE_S) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers must be >= 1, got {workers}")
        self.count = workers or cores()
        self.patience_s = patience_s
        self.workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop()
        self.workers = []

    def spread(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result | Crash]]:
        """Apply a function to tasks; gives the number of each task with its result, in the order in which they are done.

        Args:
            function: A function of a module, so that a new process finds it; imports no torch.
            tasks: Small things that can be pickled.

        Raises:
            MedSSLError: What the function raised, or processes do not start here.
        """
        left = deque(range(len(tasks)))
        start = time.monotonic()
        while left and (
            self.count == 1 or len(left) == 1 or self._is_soon_done(time.monotonic() - start, len(tasks) - len(left), len(left))
        ):
            index = left.popleft()
            yield index, function(tasks[index])
        if left:
            self.workers += [_Worker() for _ in range(min(self.count, len(left)) - len(self.workers))]
            yield from self._serve(function, tasks, left)

    def _is_soon_done(self, elapsed_s: float, done: int, left: int) -> bool:
        """Whether no process is to be started yet, or at all when the tasks that are left take as long as those done."""
        return not self.workers and (elapsed_s < self.patience_s or elapsed_s * left < self.patience_s * done)

    def _serve(self, function: Callable[[Task], Result], tasks: Sequence[Task], left: deque[int]) -> Iterator[tuple[int, Result | Crash]]:
        """Give tasks to whoever has none until all are done; a task whose process died is tried once more."""
        died = set[int]()
        for worker in self.workers:
            self._feed(worker, function, tasks, left)
        while left or any(worker.index is not None for worker in self.workers):
            heard = wait([worker.pipe for worker in self.workers])
            for place, worker in enumerate(self.workers):
                if worker.pipe not in heard:
                    continue
                index, answer = worker.index, worker.answer()
                if isinstance(answer, Crash):
                    worker.stop()
                    self.workers[place] = _Worker()
                if isinstance(answer, Crash) and index is not None and index not in died:
                    died.add(index)
                    left.appendleft(index)
                elif index is not None:
                    yield index, answer
                self._feed(self.workers[place], function, tasks, left)

    @staticmethod
    def _feed(worker: _Worker, function: Callable[[Task], Result], tasks: Sequence[Task], left: deque[int]) -> None:
        if worker.is_ready and left:
            worker.give(left.popleft(), function, tasks)


def work() -> None:
    """The life of a worker: it ends with the pipe, and with that when its parent is killed."""
    pipe = Connection(int(sys.argv[1]))
    sys.path[:] = pipe.recv()
    pipe.send(_READY)
    while True:
        try:
            function, task = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(task)
        except MedSSLError as error:
            answer = _Failed.of(error)
        except Exception:  # noqa: BLE001 - whatever it is, the parent must hear of it
            answer = _Failed(None, (traceback.format_exc(),))
        pipe.send(answer)
