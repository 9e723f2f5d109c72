"""What no tag table can take away: objects that are free text, pixels with text in them, and faces."""

import re

from pydicom.dataset import Dataset

from medssl.io.deidentify.values import text_of
from medssl.io.dicom.header import BadFile, DicomFile

_ROOT = "1.2.840.10008.5.1.4.1.1"
_STANDARD = "1.2.840.10008."
_CAPTURE, _PHOTOGRAPH, _SEGMENTATION, _RADIOTHERAPY = f"{_ROOT}.7", f"{_ROOT}.77", f"{_ROOT}.66.4", f"{_ROOT}.481"
_ULTRASOUND = (f"{_ROOT}.3", f"{_ROOT}.6")
_TEXTED_MODALITIES = frozenset({"US", "IVUS", "ES", "SC", "OT", "DOC", "XC", "GM"})
_TEXTED_TYPES = frozenset({"SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREEN CAPTURE", "DOSE_INFO", "DOSE INFO", "CSA REPORT", "LABEL"})
_TEXTED_SERIES = re.compile(r"SCREEN ?(SAVE|SHOT|CAPTURE)|DOSE (INFO|REPORT|RECORD)|PATIENT PROTOCOL|EXAM PROTOCOL")
_HEAD = re.compile(
    r"HEAD|BRAIN|SKULL|CRANI|CEREB|FACE|FACIAL|ORBIT|SINUS|NECK|JAW|MANDIB|MAXILL|PITUIT|KOPF|SCHAEDEL|SCHÄDEL|CRÂN|TETE|TÊTE"
)
_CROSS_SECTIONS = frozenset({"CT", "MR", "PT", "NM"})

# Refused as a scan for lack of a decoder, of grey values or of a place in the patient; their headers were walked to the end all the same.
_ONLY_PIXELS_UNREAD = frozenset({"bad_datatype", "modality_lut", "mosaic", "unsupported_bits"})
_NOT_A_SCAN = "not_a_scan"

_SOP_CLASS, _IMAGE_TYPE, _MODALITY, _CONVERSION = 0x00080016, 0x00080008, 0x00080060, 0x00080064
_STUDY_TEXT, _SERIES_TEXT, _BODY_PART, _PROTOCOL = 0x00081030, 0x0008103E, 0x00180015, 0x00181030
_PHOTOMETRIC, _BURNED_IN, _FEATURES = 0x00280004, 0x00280301, 0x00280302
_OVERLAYS, _OVERLAY_DATA = 0x6000, 0x3000


def is_unsafe(header: BadFile) -> bool:
    """Whether a file that the intake refused is not even to be parsed."""
    return header.code not in _ONLY_PIXELS_UNREAD | {_NOT_A_SCAN}


def refusal(header: DicomFile | BadFile, dataset: Dataset, *, force_burned_in: bool) -> str:
    """Reason code for which an object is not copied, empty where it may be.

    Args:
        header: Verdict of the intake, not an unsafe one.
        dataset: The object as it was read.
        force_burned_in: Pixels with text are let through.
    """
    sop_class = text_of(dataset, _SOP_CLASS)
    if not sop_class.startswith(_STANDARD) or _is_a(sop_class, _RADIOTHERAPY):
        return _NOT_A_SCAN  # PS3.15 E.1.1 defines nothing for private classes
    is_scan = not isinstance(header, BadFile) or header.code in _ONLY_PIXELS_UNREAD
    if not is_scan and not _is_a(sop_class, _SEGMENTATION, _CAPTURE, _PHOTOGRAPH):
        return _NOT_A_SCAN
    return "burned_in_annotation" if has_text(dataset) and not force_burned_in else ""


def has_text(dataset: Dataset) -> bool:
    """Whether the pixels are declared to hold text, or come from a kind of object that usually does."""
    return (
        text_of(dataset, _BURNED_IN).upper() == "YES"
        or _is_a(text_of(dataset, _SOP_CLASS), _CAPTURE, *_ULTRASOUND)
        or text_of(dataset, _MODALITY) in _TEXTED_MODALITIES
        or bool(text_of(dataset, _CONVERSION))
        or not _TEXTED_TYPES.isdisjoint(text_of(dataset, _IMAGE_TYPE).upper().split("\\"))
        or _TEXTED_SERIES.search(text_of(dataset, _SERIES_TEXT).upper()) is not None
        or not text_of(dataset, _PHOTOMETRIC).startswith("MONOCHROME")
        or _overlay_in_pixels(dataset)
    )


def _is_a(sop_class: str, *roots: str) -> bool:
    return any(sop_class == root or sop_class.startswith(f"{root}.") for root in roots)


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether an overlay lies in unused bits of the pixels (PS3.3 C.9.2, retired), where removing its group does not reach."""
    groups = {int(tag) >> 16 for tag in sorted(dataset.keys())}
    return any((group << 16 | _OVERLAY_DATA) not in dataset for group in groups if group & 0xFF00 == _OVERLAYS and not group % 2)


def shows_face(dataset: Dataset) -> bool:
    """Whether a face may be made from the voxels: a cross-section of the head, or of a part of the body that is not told."""
    if text_of(dataset, _FEATURES).upper() == "YES":
        return True
    if text_of(dataset, _MODALITY) not in _CROSS_SECTIONS or text_of(dataset, _FEATURES).upper() == "NO":
        return False
    told = [text_of(dataset, tag).upper() for tag in (_BODY_PART, _STUDY_TEXT, _SERIES_TEXT, _PROTOCOL)]
    return not told[0] or any(_HEAD.search(text) for text in told)
