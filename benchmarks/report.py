"""How long a full report takes, images included, and whether its memory grows with the number of scans.

    python -m benchmarks.report --scans 250 1000

Makes a results folder of generated scans (96 x 96 x 32, a bright ball as lesion in half of them, about one call in ten wrong), then runs
`medssl report` on it in a process of its own and measures wall time, the time of all its processors (which other work on the machine hardly
changes) and the largest memory of any of its processes.
"""

import argparse
import csv
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (96, 96, 32)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
THRESHOLD = 0.5
SITES, VENDORS = ("north", "south", "east"), ("Siemens", "Philips", "GE")


def ball(centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """A ball in voxels, flattened along K like a lesion on thick slices."""
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (3 * (k - centre[2])) ** 2
    return np.asarray(distance <= radius**2)


def write_scan(folder: Path, number: int) -> dict[str, object]:
    """Maps and finding of one scan; returns its row of the reference."""
    generator, scan_id, label = np.random.default_rng(number), f"scan_{number:05d}", number % 2
    score = float(np.clip(generator.normal(0.72 if label else 0.28, 0.17), 0.001, 0.999))
    centre, radius = generator.uniform((30, 30, 10), (66, 66, 22)), generator.uniform(4, 14)
    truth = ball(centre, radius) if label else np.zeros(SHAPE, bool)
    mask = ball(centre + generator.normal(0, 1.5, 3), radius) if score >= THRESHOLD else np.zeros(SHAPE, bool)
    image = generator.integers(80, 120, SHAPE).astype(np.int16) + 60 * truth.astype(np.int16)
    maps = {
        "image": image,
        "mask": mask.astype(np.uint8),
        "lesion": truth.astype(np.uint8),
        "probability": (mask * score).astype(np.float32),
    }
    for kind, array in maps.items():
        content = gzip.compress(nib.Nifti1Image(array, AFFINE).to_bytes(), 1)
        (folder / "maps" / f"{scan_id}_{kind}.nii.gz").write_bytes(content)
    write_finding(folder, scan_id, score, mask)
    lesion = f"maps/{scan_id}_lesion.nii.gz"
    facts = {"patient": f"p{number}", "site": SITES[number % 3], "vendor": VENDORS[number // 3 % 3], "sex": "FM"[number // 2 % 2]}
    return {"scan_id": scan_id, "label": label, "lesion": lesion, "age": 20 + number % 70, "field": "3 T", "slice_mm": 3, **facts}


def write_finding(folder: Path, scan_id: str, score: float, mask: NDArray[np.bool_]) -> None:
    """The JSON record of a scan."""
    voxels = int(mask.sum())
    found = {"centre_mm": [0, 0, 0], "centre_voxel": [0, 0, 0], "volume_ml": 0.003 * voxels, "voxels": voxels, "score": score}
    slices = [score if mask[:, :, k].any() else 0.05 + 0.001 * k for k in range(SHAPE[2])]
    finding = {
        **{"scan_id": scan_id, "status": "scored", "source": f"{scan_id}.nii.gz", "modality": "MR", "nominal": False, "shape": SHAPE},
        **{"spacing_mm": [1, 1, 3], "score": score, "threshold": THRESHOLD, "slice_scores": slices, "lesions": [found] if voxels else []},
        **{"verdict": "positive" if score >= THRESHOLD else "negative", "model_id": "benchmark", "warnings": []},
    }
    (folder / "scans" / f"{scan_id}.json").write_text(json.dumps(finding))


def write_results(folder: Path, scans: int) -> None:
    """A results folder with its reference."""
    for part in ("scans", "maps"):
        (folder / part).mkdir(parents=True)
    rows = [write_scan(folder, number) for number in range(scans)]
    with (folder / "reference.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    point = {"threshold": THRESHOLD, "rule": "youden", "chosen_on": "validation", "locked_at": "2026-01-01T00:00:00+00:00"}
    run = {
        "model_id": "benchmark",
        "started": "2026-01-02T00:00:00+00:00",
        "finished": "2026-01-02T01:00:00+00:00",
        "task": "segmentation",
        "split": "test",
    }
    points = {unit: {"unit": unit, **point} for unit in ("scan", "slice", "voxel")}
    (folder / "run.json").write_text(json.dumps({**run, "operating_points": points}))


def measure(folder: Path, *, pdf: bool) -> tuple[float, float, float]:
    """Seconds on the clock, seconds of all processors together, and MiB of the largest process of `medssl report` and its workers.

    The MiB are the most of any process so far, so the fewest scans come first.
    """
    command = [sys.executable, "-m", "medssl", "report", str(folder), "--pdf", str(pdf).lower()]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def main() -> None:
    """Print a row for each number of scans, fewest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--pdf", action="store_true", help="print to PDF too (its browser then is the largest process)")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for scans in sorted(options.scans):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            write_results(results, scans)
            seconds, cpu, mib = measure(results, pdf=options.pdf)
            size = (results / "report.html").stat().st_size / 1e6
            print(
                f"{scans:6d} scans  {seconds:6.1f} s  {cpu:6.1f} s of processors  {mib:5.0f} MiB at most  report.html {size:.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
