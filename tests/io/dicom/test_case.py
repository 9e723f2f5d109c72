from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medssl.io.dicom.case import read_case


def write(path: Path, **tags: object) -> Path:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID, data.PatientName = "1.2.840.10008.5.1.4.1.1.4", "1.2.3", "Secret^Name"
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_a_header_tells_age_sex_maker_and_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", Manufacturer="SIEMENS Healthineers", MagneticFieldStrength="2.89", PatientSex="F", PatientAge="045Y")
    assert read_case(path) == {"age": "45", "sex": "F", "vendor": "Siemens", "field": "2.9 T"}


def test_a_folder_is_read_by_its_first_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    write(tmp_path / "z.dcm", Manufacturer="GE MEDICAL SYSTEMS", KVP="119.8")
    assert read_case(tmp_path) == {"vendor": "GE", "field": "120 kV"}


@pytest.mark.parametrize(("age", "told"), [("018M", "1"), ("003W", "0"), ("101Y", "90"), ("", None)])
def test_ages_are_years_and_ninety_is_the_oldest(tmp_path: Path, age: str, told: str | None) -> None:
    assert read_case(write(tmp_path / "a.dcm", PatientAge=age)).get("age") == told


def test_free_text_never_leaves(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", Manufacturer="Dr Secret's own scanner", PatientSex="SECRET")
    assert read_case(path) == {"vendor": "another maker"}


def test_what_is_no_dicom_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"x" * 300)
    assert read_case(tmp_path / "a.dcm") == read_case(tmp_path / "absent") == {}
