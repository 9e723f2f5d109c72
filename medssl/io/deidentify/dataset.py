"""One DICOM data set without its patient: the tag table applied to any depth, and what was done declared. PS3.15 annex E."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from medssl.io.deidentify.pseudonyms import Pseudonym, Pseudonyms
from medssl.io.deidentify.table import CLEAN, DUMMY, EMPTY, KEEP, PIXEL_GROUP, REMOVE, action, known_vr
from medssl.io.deidentify.table import UID as REMAP
from medssl.io.deidentify.values import dummy, is_well_formed, moved, text_of

PATIENT_NAME, PATIENT_ID, ISSUER, BIRTH_DATE = 0x00100010, 0x00100020, 0x00100021, 0x00100030
STUDY_UID, SERIES_UID, INSTANCE_UID, INSTANCE_NUMBER = 0x0020000D, 0x0020000E, 0x00080018, 0x00200013
_ACCESSION, _OTHER_IDS, _OTHER_NAMES, _BIRTH_NAME = 0x00080050, 0x00101000, 0x00101001, 0x00101005
_IDENTIFYING = (PATIENT_NAME, PATIENT_ID, BIRTH_DATE, _ACCESSION, _OTHER_IDS, _OTHER_NAMES, _BIRTH_NAME)
_MODALITY, _PIXEL_DESCRIPTION = 0x00080060, 0x0028
_TEXT = frozenset({"CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_NUMBERS = frozenset({"DS", "IS"})
_TELLING = 4  # letters or digits; a shorter part of a name stands in too many other words
_METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
}

Step = tuple[int, str]  # tag and action


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep pydicom quiet: its warnings and its log lines tell the values of tags."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def identify(dataset: Dataset, pseudonyms: Pseudonyms) -> Pseudonym:
    """Who the patient of an object becomes: by id and issuer, else by name and birth date, else one patient a study."""
    name, number, issuer, birth = (_decoded(dataset, tag) for tag in (PATIENT_NAME, PATIENT_ID, ISSUER, BIRTH_DATE))
    if number:
        return pseudonyms.patient("id", number, issuer)
    if name:
        return pseudonyms.patient("name", name, birth)
    return pseudonyms.patient("study", text_of(dataset, STUDY_UID))


def _decoded(dataset: Dataset, tag: int) -> str:
    if tag not in dataset:
        return ""
    item = dataset.get_item(tag)
    if item.is_raw:
        item = convert_raw_data_element(cast("RawDataElement", item), encoding=dataset.original_character_set, ds=dataset)
    return "" if item.value is None else str(item.value).strip("\0 ")


@dataclass
class Cleaner:
    """Applies the tag table to one object.

    Args:
        pseudonyms: Of the key.
        patient: Who the patient becomes.
    """

    pseudonyms: Pseudonyms
    patient: Pseudonym
    _steps: set[Step] = field(default_factory=set, init=False)
    _telling: re.Pattern[str] | None = field(default=None, init=False)

    def __call__(self, dataset: Dataset) -> frozenset[Step]:
        """Change an object in place; returns which actions were taken on which tags, at any depth."""
        self._steps.clear()
        self._telling = _telling_words(dataset)
        self._walk(dataset, depth=0)
        self._set(dataset, PATIENT_NAME, self.patient.name)
        self._set(dataset, PATIENT_ID, self.patient.name)
        declare(dataset)
        return frozenset(self._steps)

    def _walk(self, dataset: Dataset, *, depth: int) -> None:
        for tag in sorted(dataset.keys()):
            taken = self._element(dataset, int(tag), depth)
            self._steps.add((int(tag), taken))

    def _element(self, dataset: Dataset, tag: int, depth: int) -> str:
        vr = _stored_vr(dataset.get_item(tag), tag)
        taken = REMOVE if depth and tag >> 16 == PIXEL_GROUP else action(tag, vr)
        if taken in (KEEP, REMAP) and vr == "SQ":
            for item in dataset[tag].value:
                self._walk(item, depth=depth + 1)
            return taken
        if taken == KEEP:
            taken = self._kept(dataset, tag, vr)
        if taken == REMOVE:
            del dataset[tag]
        elif taken != KEEP:
            taken = self._replaced(dataset, tag, taken)
        return taken

    def _kept(self, dataset: Dataset, tag: int, vr: str) -> str:
        """What is done to an element that the table keeps, now that its value is looked at."""
        if vr not in _TEXT | _NUMBERS or (vr == "CS" and (tag == _MODALITY or tag >> 16 == _PIXEL_DESCRIPTION)):
            return KEEP
        text = text_of(dataset, tag)
        if not is_well_formed(text, vr):
            return REMOVE
        return DUMMY if vr in _TEXT and self._telling is not None and self._telling.search(text) else KEEP

    def _replaced(self, dataset: Dataset, tag: int, taken: str) -> str:
        text = text_of(dataset, tag)
        if taken == EMPTY or not text:
            self._set(dataset, tag, [] if known_vr(tag) == "SQ" else "")
            return EMPTY
        if taken == CLEAN:
            text = moved(text, known_vr(tag), self.patient.shift_days)
            self._set(dataset, tag, text)
            return CLEAN if text.strip("\\") else EMPTY
        if taken == REMAP:
            self._set(dataset, tag, "\\".join(self._uid(part.strip("\0 ")) for part in text.split("\\")))
        else:
            self._set(dataset, tag, self.patient.name if tag in (PATIENT_NAME, PATIENT_ID) else dummy(tag))
        return taken

    def _uid(self, uid: str) -> str:
        is_of_the_standard = UID(uid).name != uid
        return uid if is_of_the_standard or not uid else self.pseudonyms.uid(uid)

    def _set(self, dataset: Dataset, tag: int, value: object) -> None:
        dataset[tag] = DataElement(tag, known_vr(tag), value, validation_mode=config.IGNORE)


def _stored_vr(item: RawDataElement | DataElement, tag: int) -> str:
    return known_vr(tag) or "UN" if item.VR in (None, "UN") else str(item.VR)


def _telling_words(dataset: Dataset) -> re.Pattern[str] | None:
    """A pattern that finds the patient's names and numbers inside a text, None where there are none of four letters or more."""
    found = (text_of(dataset, tag) for tag in _IDENTIFYING)
    words = {word for text in found for word in re.split(r"[\^=\\,;\s]+", text) if len(word) >= _TELLING}
    return re.compile("|".join(map(re.escape, sorted(words))), re.IGNORECASE) if words else None


def declare(dataset: Dataset) -> None:
    """Say in the object what was done to it. PS3.15 E.1.1, codes of PS3.16 CID 7050."""
    items = []
    for code, meaning in _METHODS.items():
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        items.append(item)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "medssl deidentify: PS3.15 basic profile, dates moved"
    dataset.DeidentificationMethodCodeSequence = items
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def new_file_meta(dataset: Dataset, syntax: str) -> FileMetaDataset:
    """A file meta group that describes this program and nothing of where the file came from."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(text_of(dataset, 0x00080016))
    meta.MediaStorageSOPInstanceUID = UID(text_of(dataset, INSTANCE_UID))
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = "MEDSSL"
    return meta
