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


def app_command(results: Path, *, port: int, headless: bool) -> list[str]:
    """The command that serves the review app on 127.0.0.1.

    Raises:
        UsageError: No results folder, or no port of that number.
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
        "server.showEmailPrompt": "false",
        "logger.hideWelcomeMessage": "true",  # and with it advertisements, one of which would lie over the score
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
        "theme.base": "dark",
        "theme.primaryColor": "#5aa9e6",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(asset("app/review.py")), *flags, "--", str(results.resolve())]


def run_app(command: list[str]) -> None:
    """Serve the review app until it is stopped.

    Raises:
        UsageError: It ends by itself, as on a port that is taken.
    """
    with suppress(KeyboardInterrupt):
        code = subprocess.run(command, check=False).returncode
        if code:
            raise UsageError(f"the review app ended with exit code {code}; its message is above, and another --port may help")
