"""Every scan below a folder, read in processes of their own."""

from pathlib import Path

from rich.progress import track

from medssl.io.discover import find_sources, read_folder, read_record, refuse
from medssl.io.options import ReadOptions
from medssl.io.record import ScanRecord
from medssl.workers import Crash, Pool


def read_all(folder: Path, options: ReadOptions, workers: int | None) -> list[ScanRecord]:
    """What is said of every scan below a folder, in order; a scan over which a process died is rejected."""
    sources = find_sources(folder, options)
    if not sources:
        return [reading.record for reading in read_folder(folder)]  # an empty folder is a finding too
    with Pool(workers) as pool:
        done = dict(track(pool.spread(read_record, sources), "reading", total=len(sources)))
    outcomes = [done[index] for index in range(len(sources))]
    return [
        refuse(source, ("decoder_crashed",)) if isinstance(outcome, Crash) else outcome
        for source, outcome in zip(sources, outcomes, strict=True)
    ]
