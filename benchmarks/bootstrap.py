"""How long do 2,000 resamples of patients take, of AUROC, sensitivity and specificity at 2,000 units, and DeLong at 100,000?

- medssl: `medssl.evaluation.resampling.resample`, all draws together
- scikit-learn: the usual loop, `roc_auc_score` and `recall_score` of both classes on the units of the drawn patients

Both draw 500 patients of 4 slices each, with ties among the scores. The loop runs as many draws as `--sample` says in each round, and its
time is scaled to 2,000; the rounds are interleaved and the ratio is the median of the rounds, by the clock and by processor time (which
other work on the machine disturbs less). Both must agree to 1e-9 on the same drawn patients, and their whole distributions, each with draws
of its own, within Monte Carlo error.

    python -m benchmarks.bootstrap [--rounds 7] [--sample 100]
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import recall_score, roc_auc_score

from medssl.evaluation.classification import delong
from medssl.evaluation.intervals import patient_weights
from medssl.evaluation.resampling import resample

UNITS, PATIENTS, DRAWS, MANY = 2_000, 500, 2_000, 100_000
THRESHOLD = 0.7
NAMES = ("auroc", "sensitivity", "specificity")

Study = tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]
Samples = dict[str, NDArray[np.float64]]


def make_study(seed: int = 0) -> Study:
    """Labels, scores with ties, and patients whose slices are alike."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(PATIENTS), UNITS // PATIENTS)
    labels = (generator.random(UNITS) < 0.4).astype(np.intp)
    common = generator.normal(size=PATIENTS)[patients]
    return labels, np.round(1.2 * labels + 0.7 * common + generator.normal(size=UNITS), 2), patients


def peer(study: Study, drawn: NDArray[np.intp]) -> Samples:
    """The loop; `drawn` is (draws, PATIENTS)."""
    labels, scores, patients = study
    rows = [np.flatnonzero(patients == patient) for patient in range(PATIENTS)]
    found = np.empty((len(drawn), 3))
    for number, chosen in enumerate(drawn):
        units = np.concatenate([rows[patient] for patient in chosen])
        truth, score = labels[units], scores[units]
        called = (score >= THRESHOLD).astype(np.intp)
        found[number] = roc_auc_score(truth, score), recall_score(truth, called), recall_score(truth, called, pos_label=0)
    return dict(zip(NAMES, found.T, strict=True))


def ours(study: Study, *, draws: int = DRAWS, seed: int = 0) -> Samples:
    """All draws together."""
    return resample(*study, threshold=THRESHOLD, draws=draws, seed=seed)


def check_equal(study: Study) -> None:
    """The same drawn patients give the same numbers."""
    weights = np.concatenate(list(patient_weights(PATIENTS, draws=20, seed=3))).astype(int)
    theirs = peer(study, np.stack([np.repeat(np.arange(PATIENTS), weight) for weight in weights]))
    found = ours(study, draws=20, seed=3)
    for name in NAMES:
        if not np.allclose(found[name], theirs[name], rtol=0, atol=1e-9):
            raise SystemExit(f"{name} of the same drawn patients differs from scikit-learn")


def check_distributions(found: Samples, theirs: Samples) -> dict[str, float]:
    """Means and spreads of other draws, apart by less than 4 Monte Carlo errors; gives the distances in such errors."""
    apart = {}
    for name in NAMES:
        a, b = found[name], theirs[name]
        spread = math.sqrt((a.var() + b.var()) / 2)
        shares = 1 / len(a) + 1 / len(b)
        apart[f"{name} mean"] = abs(a.mean() - b.mean()) / (spread * math.sqrt(shares))
        apart[f"{name} deviation"] = abs(a.std() - b.std()) / (spread * math.sqrt(shares / 2))
    if max(apart.values()) > 4:
        raise SystemExit(f"the distributions differ by more than Monte Carlo error: {apart}")
    return apart


Seconds = dict[str, list[float]]


def time_rounds(study: Study, *, rounds: int, sample: int) -> tuple[Seconds, Samples]:
    """Seconds for all draws of both, of the clock and of the processor, in each round but the first, and what the loop found."""
    generator = np.random.default_rng(7)
    seconds: Seconds = {"medssl": [], "peer": [], "medssl cpu": [], "peer cpu": []}
    parts: list[Samples] = []
    for _ in range(rounds + 1):
        start = _now()
        ours(study)
        between = _now()
        parts.append(peer(study, generator.integers(0, PATIENTS, (sample, PATIENTS))))
        end = _now()
        for kind, before, middle, after in zip(("", " cpu"), start, between, end, strict=True):
            seconds["medssl" + kind].append(middle - before)
            seconds["peer" + kind].append((after - middle) * DRAWS / sample)
    return {name: found[1:] for name, found in seconds.items()}, {name: np.concatenate([part[name] for part in parts]) for name in NAMES}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def time_delong(rounds: int) -> float:
    """Median seconds of DeLong's AUROC and variance at 100,000 units."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, MANY)
    scores = np.round(labels + generator.normal(size=MANY), 3)
    passed = []
    for _ in range(rounds):
        start = time.perf_counter()
        delong(labels, scores)
        passed.append(time.perf_counter() - start)
    return statistics.median(passed)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, then the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sample", type=int, default=100, help="draws of the loop in each round, scaled to 2,000")
    given = parser.parse_args(argv)
    study = make_study()
    check_equal(study)
    seconds, looped = time_rounds(study, rounds=given.rounds, sample=given.sample)
    apart = check_distributions(ours(study), looped)
    ratio, cpu_ratio = (
        statistics.median(b / a for a, b in zip(seconds["medssl" + kind], seconds["peer" + kind], strict=True)) for kind in ("", " cpu")
    )
    mine, theirs = seconds["medssl"], seconds["peer"]
    delong_seconds = time_delong(given.rounds)
    print(f"{DRAWS} draws of {PATIENTS} patients, {UNITS} units; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"medssl        {statistics.median(mine):8.3f} s ({min(mine):.3f}-{max(mine):.3f})")
    spread = f"({min(theirs):.3f}-{max(theirs):.3f})"
    print(f"scikit-learn  {statistics.median(theirs):8.3f} s {spread}   {ratio:.0f} x ({cpu_ratio:.0f} x by processor time)")
    print(f"farthest apart: {max(apart.values()):.1f} Monte Carlo errors; DeLong at {MANY:,} units: {delong_seconds:.3f} s")
    record = {
        "benchmark": "bootstrap",
        "medssl": statistics.median(mine),
        "peer": statistics.median(theirs),
        "peer_name": "scikit-learn loop",
    }
    record |= {
        "ratio": ratio,
        "ratio_cpu": cpu_ratio,
        "unit": "s",
        "higher_is_better": False,
        "delong_100000_s": delong_seconds,
        "monte_carlo_errors": apart,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
