"""What a model said of scans that were held out of its training: kept beside the run until all folds are done."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.files import write_whole

FOLDER = "held_out"


def write_output(folder: Path, scan_id: str, channels: NDArray[np.float32]) -> None:
    """Keep the probabilities (channels, I, J, K) of a segmenter or (channels, K) of a classifier, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, channels=channels)
    write_whole(folder / f"{scan_id}.npz", [buffer.getvalue()])


def read_output(folder: Path, scan_id: str) -> NDArray[np.float32]:
    """The probabilities that were kept."""
    with np.load(folder / f"{scan_id}.npz", allow_pickle=False) as arrays:
        return np.asarray(arrays["channels"])
