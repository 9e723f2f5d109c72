"""The error tree: every failure a user can cause or meet, with its exit code.

A message says what happened, what was found, what is allowed and what to do next, in one line and without any patient value.
"""


class MedSSLError(Exception):
    """Base of every error that medssl raises on purpose; never 1, which says that all is done and some scans were rejected."""

    exit_code: int = 2


class UsageError(MedSSLError):
    """A command, a path or an argument cannot be used as given."""


class ConfigError(UsageError):
    """A setting has a value that is not allowed."""


class ManifestError(UsageError):
    """A table of scans (manifest, labels, reference) is not usable.

    Args:
        code: Reason code of `docs/intake.md`, such as `missing_column`.
        message: What was found, what is allowed, what next.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class MissingDependencyError(UsageError):
    """An optional package is needed; the message holds the install line."""


class ScanError(MedSSLError):
    """One scan cannot be read safely.

    Args:
        code: Reason code of `docs/intake.md`, such as `missing_slice`.
        message: What was found, without any value of a patient's tag.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ConflictError(MedSSLError):
    """A folder holds work of another model or configuration."""

    exit_code = 3


class BundleError(MedSSLError):
    """A model is unsafe, damaged, or of a version that cannot be read."""

    exit_code = 4


class NoSpaceError(MedSSLError):
    """The disk is full; what was there before is intact."""

    exit_code = 5


class HelperError(MedSSLError):
    """A process that helps a run has failed; its own message went before."""


class DivergenceError(MedSSLError):
    """Training was stopped because its loss or its weights are no numbers any more."""


class CollapseError(MedSSLError):
    """Pretraining was stopped because the encoder tells scans apart no more."""
