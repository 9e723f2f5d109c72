"""Files that travel with the package: configurations and the review app.

In a wheel they lie below `medssl/`; in a checkout beside it.
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from medssl.errors import MissingDependencyError, UsageError

_PACKAGE = Path(__file__).resolve().parent
_LAST_PORT = 65535


def asset(name: str) -> Path:
    """A file or folder by its path in the checkout, such as `configs/smoke.yaml`.

    Raises:
        UsageError: The installation lacks it.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise UsageError(f"this installation lacks {name}; install medssl again")


def run_app(results: Path, *, port: int, headless: bool) -> None:
    """Serve the review app on 127.0.0.1 until it is stopped.

    Raises:
        UsageError: No results folder, no port of that number, or the app ends by itself, as on a port that is taken.
        MissingDependencyError: Streamlit is not installed.
    """
    import importlib.util

    if not 1 <= port <= _LAST_PORT:
        raise UsageError(f"--port takes a number from 1 to {_LAST_PORT}, got {port}")
    if not (results / "run.json").is_file():
        raise UsageError(f"{results.name} is no results folder; medssl score makes one")
    if importlib.util.find_spec("streamlit") is None:
        raise MissingDependencyError("the app needs streamlit; install it with: pip install 'medssl[app]'")
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": str(headless).lower(),
        "server.enableXsrfProtection": "true",
        "server.fileWatcherType": "none",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
        "theme.base": "dark",
        "theme.primaryColor": "#5aa9e6",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(asset("app/review.py")), *flags, "--", str(results.resolve())]
    with suppress(KeyboardInterrupt):
        code = subprocess.run(command, check=False).returncode
        if code:
            raise UsageError(f"the review app ended with exit code {code}; its message is above, and another --port may help")
