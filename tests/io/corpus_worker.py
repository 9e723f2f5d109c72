"""Reads cases of the shared corpus, each in a forked process with limits: `python corpus_worker.py JOBS.json ANSWERS.json`.

Jobs are paths by the case's id. An answer holds the records, the seconds of processor time, the peak memory in MiB, every path that was
opened, and how the process ended.
"""

import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from medssl.io.discover import read_folder

CPU_SECONDS, WALL_SECONDS = 10, 120  # the machine may be busy; a case that sleeps is one that hangs
ADDRESS_SPACE = 4 << 30


def answer(path: str) -> dict[str, object]:
    """What one case gives, read in this process."""
    opened: list[str] = []
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1]))  # decoders set their own
    signal.alarm(WALL_SECONDS)
    sys.addaudithook(lambda event, args: opened.append(os.fsdecode(args[0])) if event == "open" and not isinstance(args[0], int) else None)
    before = time.process_time()
    records = [reading.record.as_dict() for reading in read_folder(Path(path))]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"records": records, "seconds": time.process_time() - before, "peak_mib": usage.ru_maxrss / 1024, "opened": opened}


def run(path: str, folder: Path) -> dict[str, object]:
    """The same in a child process; a child that dies has no records."""
    target = folder / "answer.json"
    target.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            target.write_text(json.dumps(answer(path)))
        finally:
            os._exit(int(not target.is_file()))
    _, status = os.waitpid(child, 0)
    found = json.loads(target.read_text()) if target.is_file() else {"records": None}
    return found | {"ended": os.waitstatus_to_exitcode(status)}


def main() -> None:
    """Read the jobs, write the answers."""
    logging.disable(logging.CRITICAL)
    jobs, answers = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(path, Path(folder)) for name, path in json.loads(jobs.read_text()).items()}
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
