"""DICOM PET to SUV by body weight, in g/ml.

The rules are those of the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA, "Standardized Uptake Value
(SUV)", also used by the Imaging Data Commons), with the attributes of PS3.3 C.8.9.1 and C.8.9.2. Headers are read here once more, since no
other scan needs these tags. No value of them leaves this module but the one factor.
"""

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from medssl.io.dicom.elements import Elements
from medssl.io.dicom.header import DicomFile, parse_header
from medssl.io.dicom.series import SeriesError
from medssl.io.dicom.tags import items_of, optional_float, text
from medssl.io.files import HEAD_BYTES, read_file

_UNITS, _SUV_TYPE, _CORRECTED, _DECAY = 0x00541001, 0x00541006, 0x00280051, 0x00541102
_WEIGHT, _TRACER, _DOSE, _HALF_LIFE = 0x00101030, 0x00540016, 0x00181074, 0x00181075
_INJECTED_AT, _INJECTED_ON = 0x00181072, 0x00181078  # a time, a date with time
_SERIES_DATE, _SERIES_TIME, _ACQUIRED_DATE, _ACQUIRED_TIME = 0x00080021, 0x00080031, 0x00080022, 0x00080032
_REFERENCE_MS, _DURATION_MS = 0x00541300, 0x00181242
_GE, _GE_SCAN = 0x00090010, 0x0009100D
_PHILIPS, _PHILIPS_SUV, _PHILIPS_BQML = 0x70530010, 0x70531000, 0x70531009
_OF_SERIES = (_UNITS, _SUV_TYPE, _CORRECTED, _DECAY, _WEIGHT, _SERIES_DATE, _SERIES_TIME, _PHILIPS_SUV, _PHILIPS_BQML)
_OF_TRACER = (_DOSE, _HALF_LIFE, _INJECTED_AT, _INJECTED_ON)
_WANTED = frozenset(
    {*_OF_SERIES, *_OF_TRACER, _TRACER, _ACQUIRED_DATE, _ACQUIRED_TIME, _REFERENCE_MS, _DURATION_MS, _GE, _GE_SCAN, _PHILIPS}
)
_MOST_HALF_LIVES = 10  # a longer wait between injection and scan is a wrong time
_TIME = re.compile(r"(\d{2})(\d{2})?(\d{2})?(\.\d{1,6})?")
_NO_YEAR, _NO_DATE = 1900, "19000101"  # where dates were removed, times of one day are compared


@dataclass(frozen=True)
class _Dose:
    """What was injected: Bq, seconds, and when; None where it is not known or not above 0."""

    becquerel: float | None
    half_life_s: float | None
    time: str
    moment: str


def suv_factor(files: Sequence[DicomFile]) -> float:
    """What rescaled values of a PET series are multiplied with to be SUV by body weight, in g/ml.

    Args:
        files: All slices of one series.

    Raises:
        SeriesError: `no_suv`, with a code for each thing that is missing: `suv_units`, `suv_correction`, `suv_weight`, `suv_dose`,
            `suv_half_life`, `suv_times`.
    """
    slices = [_elements(file) for file in files]
    first = slices[0]
    if any(file.multiframe for file in files) or len({_told(each) for each in slices}) > 1:
        raise _no_suv("the file is multi-frame, or its slices differ in units, weight, dose or times", "suv_units")
    units, corrected = text(first, _UNITS).upper(), text(first, _CORRECTED).upper().split("\\")
    if not {"ATTN", "DECAY"} <= {each.strip() for each in corrected}:
        raise _no_suv("the values are not corrected for attenuation and decay", "suv_correction")
    if units == "GML" and text(first, _SUV_TYPE).upper() in ("", "BW"):
        return 1.0
    if units == "CNTS":
        return _philips_factor(first, slices)
    if units != "BQML":
        raise _no_suv("the units are neither BQML, GML by body weight nor CNTS of Philips", "suv_units")
    return _factor(first, slices)


def _philips_factor(first: Elements, slices: Sequence[Elements]) -> float:
    """From counts, by the private scale factors to SUV or, without that, to Bq/ml."""
    known = text(first, _PHILIPS) == "Philips PET Private Group"
    suv, bqml = (optional_float(first, tag) if known else None for tag in (_PHILIPS_SUV, _PHILIPS_BQML))
    if suv:
        return suv
    if not bqml:
        raise _no_suv("the units are counts without the private scale factors (7053,1000) and (7053,1009) of Philips", "suv_units")
    return bqml * _factor(first, slices)


def _factor(first: Elements, slices: Sequence[Elements]) -> float:
    """From Bq/ml: the weight in g by the dose that was left at the time that the values are corrected to."""
    dose, weight_kg, decay = _dose(first), _above_zero(first, _WEIGHT), text(first, _DECAY).upper()
    missing = {
        "suv_weight": weight_kg is None,
        "suv_dose": dose.becquerel is None,
        "suv_half_life": dose.half_life_s is None and decay != "ADMIN",
        "suv_correction": decay not in ("START", "ADMIN"),
    }
    codes = [code for code, is_missing in missing.items() if is_missing]
    if codes or weight_kg is None or dose.becquerel is None:
        raise _no_suv(f"missing, zero or of no use: {', '.join(code[4:] for code in codes)}", *codes)
    if decay == "ADMIN" or dose.half_life_s is None:
        return 1000 * weight_kg / dose.becquerel
    elapsed_s = _elapsed_s(dose, _scan_start(first, slices, dose.half_life_s))
    if not 0 <= elapsed_s <= _MOST_HALF_LIVES * dose.half_life_s:
        raise _no_suv("the scan begins before the injection, or long after the dose has decayed", "suv_times")
    return 1000 * weight_kg / (dose.becquerel * 2 ** (-elapsed_s / dose.half_life_s))


def _scan_start(first: Elements, slices: Sequence[Elements], half_life_s: float) -> datetime.datetime:
    """When the scan began, to which values with DecayCorrection START are corrected."""
    series = _moment(text(first, _SERIES_DATE), text(first, _SERIES_TIME))
    acquired = [(_moment(text(each, _ACQUIRED_DATE), text(each, _ACQUIRED_TIME)), number) for number, each in enumerate(slices)]
    known = [(moment, number) for moment, number in acquired if moment is not None]
    if series is None or len(known) < len(slices):
        raise _no_suv("the date or time of the series or of an acquisition is missing", "suv_times")
    earliest, number = min(known)
    if _NO_YEAR in (series.year, earliest.year) and series.year != earliest.year:
        raise _no_suv("the date of the series or of the acquisitions is missing", "suv_times")
    if series <= earliest:
        return series
    # the series was made later, of an older one: its own time says nothing
    ge = text(first, _GE_SCAN) if text(first, _GE) == "GEMS_PETD_01" else ""
    scanned = _moment(ge[:8], ge[8:])
    if scanned is not None:
        return scanned
    reference_ms, duration_ms = (_above_zero(slices[number], tag) for tag in (_REFERENCE_MS, _DURATION_MS))
    if reference_ms is None or duration_ms is None:
        return earliest
    rate = math.log(2) / half_life_s
    lost = rate * duration_ms / 1000
    average_s = math.log(lost / -math.expm1(-lost)) / rate  # within the frame, where the count rate is its average
    return earliest + datetime.timedelta(seconds=average_s - reference_ms / 1000)


def _elapsed_s(dose: _Dose, start: datetime.datetime) -> float:
    """Seconds from the injection to the start of the scan; a time without a date is the last one before the scan."""
    day = start.strftime("%Y%m%d")
    dated = _moment(dose.moment[:8], dose.moment[8:]) if start.year != _NO_YEAR else None
    if dated is not None:
        return (start - dated).total_seconds()
    injected = _moment(day, dose.time or dose.moment[8:])
    if injected is None:
        raise _no_suv("the time of the injection is missing", "suv_times")
    return (start - injected).total_seconds() % 86400


def _dose(first: Elements) -> _Dose:
    tracers = items_of(first, _TRACER)
    if len(tracers) > 1:
        raise _no_suv("several doses were injected", "suv_dose")
    tracer = tracers[0] if tracers else {}
    return _Dose(_above_zero(tracer, _DOSE), _above_zero(tracer, _HALF_LIFE), text(tracer, _INJECTED_AT), text(tracer, _INJECTED_ON))


def _elements(file: DicomFile) -> Elements:
    head, stamp = read_file(file.path, length=HEAD_BYTES, stamp=file.stamp)
    return parse_header(file.path, head, stamp, wanted=_WANTED)[0].elements


def _told(found: Elements) -> tuple[str, ...]:
    """What must be the same on all slices of a series."""
    tracers = [text(item, tag) for item in items_of(found, _TRACER) for tag in _OF_TRACER]
    return (*(text(found, tag) for tag in _OF_SERIES), *tracers)


def _above_zero(found: Elements, tag: int) -> float | None:
    value = optional_float(found, tag)
    return value if value is not None and value > 0 else None


def _moment(date: str, time: str) -> datetime.datetime | None:
    """A DICOM date and time (PS3.5 6.2; the zone of a DT is that of the other times), None where it is no time."""
    found = _TIME.match(time.replace(":", ""))
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups(default="0")
    try:
        day = datetime.datetime.strptime(date.replace(".", "") or _NO_DATE, "%Y%m%d")
        return day.replace(hour=int(hours), minute=int(minutes), second=min(59, int(seconds)), microsecond=round(float(fraction) * 1e6))
    except ValueError:
        return None


def _no_suv(message: str, *codes: str) -> SeriesError:
    return SeriesError("no_suv", message, codes)
