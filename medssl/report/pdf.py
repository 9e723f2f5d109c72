"""The report on paper: printed to PDF by a Chromium that is on this machine, or not at all."""

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIME_LIMIT_S = 120

logger = logging.getLogger(__name__)


def find_browser() -> str | None:
    """The first browser on the path that can print."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_pdf(page: Path, *, browser: str | None = None, limit_s: float = _TIME_LIMIT_S) -> bytes | None:
    """A page of our own as PDF; None where it cannot be printed, and the log says why.

    Args:
        page: An HTML file that needs nothing else.
        browser: Chromium or a relative of it; the first that is found by default.
        limit_s: Seconds after which the browser is ended.
    """
    program = browser or find_browser()
    if program is None:
        logger.info("no report.pdf: no chromium on this machine; print report.html from a browser")
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="medssl-print-", ignore_cleanup_errors=True) as folder:
            made = Path(folder) / "report.pdf"
            subprocess.run(_command(program, page, made, Path(folder)), capture_output=True, timeout=limit_s, check=True)
            return made.read_bytes()
    except (subprocess.SubprocessError, OSError) as error:
        logger.warning("no report.pdf: %s did not print it (%s)", Path(program).name, type(error).__name__)
        return None


def _command(program: str, page: Path, made: Path, folder: Path) -> list[str]:
    # The sandbox of Chromium does not start as root; the page is ours, has no script and may load nothing.
    unboxed = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [
        program,
        "--headless",
        "--disable-gpu",
        *unboxed,
        f"--user-data-dir={folder / 'profile'}",
        "--no-first-run",
        "--no-pdf-header-footer",
        f"--print-to-pdf={made}",
        page.resolve().as_uri(),
    ]
