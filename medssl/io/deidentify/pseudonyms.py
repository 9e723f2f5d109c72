"""Pseudonyms made with a key that the user owns: the same input and key give the same output in every run.

All of them are HMAC-SHA256 (RFC 2104), one purpose apart from the other, so that nobody without the key can try names or numbers until
one fits.
"""

import hashlib
import hmac
import logging
import os
import secrets
import stat
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import ScanError, UsageError
from medssl.io.files import read_file

logger = logging.getLogger(__name__)

MAX_SHIFT_DAYS = 3650
_KEY_BYTES = 32
_LEAST_BYTES, _MOST_BYTES = 16, 1 << 16
_OTHERS = stat.S_IROTH | stat.S_IWOTH
_BETWEEN = "\x1f"  # never part of a DICOM text


@dataclass(frozen=True)
class Pseudonym:
    """Who a patient becomes.

    Args:
        name: `P` and 12 hex digits, for PatientName and PatientID.
        shift_days: How many whole days every date of the patient moves back, 1 to 3650.
    """

    name: str
    shift_days: int


class Pseudonyms:
    """Everything that is derived from one key.

    Args:
        key: 16 bytes or more; 32 random ones are best.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def fingerprint(self) -> str:
        """Tells one key from another without giving it away."""
        return self.digest("key", "medssl deidentify")

    def patient(self, *identity: str) -> Pseudonym:
        """The pseudonym of an identity (an id, and its issuer where there is one); case and blanks do not count."""
        drawn = self._draw("patient", *(_plain(part) for part in identity))
        return Pseudonym(f"P{drawn[:6].hex()}", 1 + int.from_bytes(drawn[8:16], "big") % MAX_SHIFT_DAYS)

    def uid(self, uid: str) -> str:
        """The UID that stands for another one everywhere; PS3.5 annex B.2, a UUID written as a number."""
        return f"2.25.{uuid.UUID(bytes=self._draw('uid', uid)[:16], version=4).int}"

    def digest(self, purpose: str, text: str, digits: int = 16) -> str:
        """Hex digits that stand for a text."""
        return self._draw(purpose, text).hex()[:digits]

    def _draw(self, *parts: str) -> bytes:
        return hmac.new(self._key, _BETWEEN.join(parts).encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split()).casefold()


def load_key(path: Path, *, create: bool = False) -> bytes:
    """The bytes of a key file.

    Args:
        path: A regular file that others cannot read.
        create: Make the file with 32 random bytes where there is none.

    Raises:
        UsageError: There is no such file, others can read it, or it is too short.
    """
    if create and not os.path.lexists(path):
        _make(path)
    if not path.is_file():
        raise UsageError("there is no such key file; give the file with your key, or add --new_key true to make one there")
    if path.stat().st_mode & _OTHERS:
        raise UsageError("the key file can be read or written by everybody on this machine; run chmod 600 on it")
    try:
        key, facts = read_file(path, length=_MOST_BYTES)
    except ScanError as error:
        raise UsageError(f"the key file cannot be used: {error}; give a regular file, no link") from error
    if not _LEAST_BYTES <= facts.size <= _MOST_BYTES:
        raise UsageError(f"the key file has {facts.size} bytes; {_KEY_BYTES} random ones are wanted, {_LEAST_BYTES} are the least")
    return key


def _make(path: Path) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"the key file cannot be made ({error.strerror}); give a place in a folder of your own") from error
    logger.info("a new key was made, %s: keep it safe and apart from the copies: who has it can link them to the patients", path.name)
