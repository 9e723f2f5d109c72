"""Names of patients: spellings that differ in case or blanks are one patient."""

import unicodedata
from collections.abc import Iterable


def patient_key(patient: str) -> str:
    """A patient's name for comparison: case and blanks do not count."""
    return "".join(unicodedata.normalize("NFKC", patient).split()).casefold()


def first_spellings(patients: Iterable[str]) -> list[str]:
    """The names of patients, each as it was spelled first, so that equal names are one patient and others are not."""
    first: dict[str, str] = {}
    return [first.setdefault(patient_key(patient), patient) for patient in patients]
