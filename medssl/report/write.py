"""Writing a report: figures first, then the document, then the numbers; every file whole or not at all."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from medssl.files import write_text, write_whole
from medssl.report.cases import read_results
from medssl.report.comparison import draw_comparison, read_others
from medssl.report.decision import draw_decision
from medssl.report.document import render
from medssl.report.evidence import gather
from medssl.report.examples import draw_examples
from medssl.report.export import metrics_csv, scans_csv
from medssl.report.figures import Picture, draw_figures
from medssl.report.forest import draw_forest
from medssl.report.metrics import build_metrics
from medssl.report.pdf import print_pdf
from medssl.report.robustness import draw_robustness

logger = logging.getLogger(__name__)

# Only names that a report gives its pictures are ever removed from a folder.
_OURS = re.compile(
    r"(scores|roc|precision_recall|confusion|reliability|froc|dice|forest|robustness|comparison|decision_curve|example_\d{2,3}_[a-z_]+)\.png"
)


def write_report(
    results: Path, out: Path, *, reference: Path | None = None, against: Sequence[Path] = (), pdf: bool = False
) -> dict[str, object]:
    """Write `metrics.json`, `metrics.csv`, `scans.csv`, `report.html` and `figures/` of a results folder.

    Args:
        results: What `medssl score` or `medssl evaluate` wrote.
        out: Where the report goes; may be the same folder.
        reference: Table of the truth; the folder's own `reference.csv` by default. Without truth the report says what it cannot say.
        against: Results of other models on the same scans, to compare with.
        pdf: Print `report.pdf` too, where there is a Chromium.

    Returns:
        The record of `metrics.json`.

    Raises:
        UsageError: There is nothing to report on, or another run has another reference or shares no scan.
        ManifestError: The reference cannot be used.
        NoSpaceError: The disk is full; every file there is whole.
    """
    evidence = gather(read_results(results, reference=reference))
    metrics = build_metrics(evidence, read_others(against, results, reference=reference))
    pictures = [*draw_figures(metrics, evidence), *draw_decision(metrics["decision_curve"]), *draw_forest(metrics)]
    pictures += [*draw_robustness(metrics["robustness"]), *draw_comparison(metrics["comparison"])]
    examples = draw_examples(evidence)
    page = render(metrics, pictures=pictures, examples=examples)
    write_figures(out / "figures", [*pictures, *examples])
    (out / "report.pdf").unlink(missing_ok=True)  # one of an earlier report must not stay beside these numbers
    write_text(out / "report.html", page)
    write_text(out / "metrics.csv", metrics_csv(metrics))
    write_text(out / "scans.csv", scans_csv(evidence))
    write_text(out / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
    printed = print_pdf(out / "report.html") if pdf else None
    if printed is not None:
        write_whole(out / "report.pdf", [printed])
    logger.info("report of %d scans written", len(evidence.scans))
    return metrics


def write_figures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Write the pictures and remove those of an earlier report."""
    for picture in pictures:
        write_whole(folder / f"{picture.name}.png", [picture.png])
    written = {f"{picture.name}.png" for picture in pictures}
    for path in folder.glob("*.png"):
        if path.name not in written and _OURS.fullmatch(path.name):
            path.unlink()
