"""What a model said of scans that were held out of its training: kept beside the run until all folds are done."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.files import write_whole

FOLDER = "held_out"


@dataclass(frozen=True, eq=False)
class Output:
    """What a model said of one scan.

    Args:
        slices: (K,) scores; one number for a classifier of volumes.
        probability: (I, J, K) of a segmenter, None of a classifier.
    """

    slices: NDArray[np.float32]
    probability: NDArray[np.float32] | None


def write_output(folder: Path, scan_id: str, output: Output) -> None:
    """Keep the output for a scan, whole or not at all."""
    maps = {} if output.probability is None else {"probability": output.probability}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, slices=output.slices, **maps)  # type: ignore[arg-type]
    write_whole(folder / f"{scan_id}.npz", [buffer.getvalue()])


def read_output(folder: Path, scan_id: str) -> Output:
    """The output for a scan."""
    with np.load(folder / f"{scan_id}.npz", allow_pickle=False) as arrays:
        return Output(arrays["slices"], arrays.get("probability"))
