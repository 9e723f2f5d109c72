"""A header that was compared with an earlier one is the header that a walk over its elements gives."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from medssl.io.dicom.header import BadFile, DicomFile, read_header
from medssl.io.dicom.templates import HeaderReader
from medssl.io.files import read_file
from medssl.phantom import make_cohort


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The slices of a generated series."""
    root = make_cohort(tmp_path_factory.mktemp("cohort"), patients=4, shape=(16, 16, 12), seed=1)
    return sorted(next(root.glob("*/flair")).iterdir())


def read_all(paths: list[Path]) -> list[DicomFile | BadFile]:
    headers = HeaderReader()
    return [headers.read(path, *read_file(path, length=headers.head_bytes)) for path in paths]


def same(first: DicomFile | BadFile, second: DicomFile | BadFile) -> bool:
    return vars(first) == vars(second)


def test_every_header_of_a_series_is_that_of_a_walk(series: list[Path]) -> None:
    assert all(same(found, read_header(path)) for found, path in zip(read_all(series), series, strict=True))


def test_most_headers_of_a_series_are_not_walked(series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import medssl.io.dicom.templates as module

    walked = []
    parse = module.parse_header
    monkeypatch.setattr(module, "parse_header", lambda path, *rest: walked.append(path) or parse(path, *rest))
    read_all(series)
    assert len(walked) < len(series) / 2


@pytest.mark.parametrize("position", range(0, 1400, 7))
def test_a_changed_byte_gives_the_answer_of_a_walk(series: list[Path], tmp_path: Path, position: int) -> None:
    content = bytearray(series[1].read_bytes())
    content[position % len(content)] ^= 0x15
    changed = tmp_path / "changed.dcm"
    changed.write_bytes(content)
    _, found = read_all([series[0], changed])
    assert same(found, read_header(changed))


def test_a_longer_value_is_another_shape(series: list[Path], tmp_path: Path) -> None:
    content = series[1].read_bytes()
    at = content.index(b"PatientID" if b"PatientID" in content else b"\x10\x00\x20\x00LO")
    length = struct.unpack_from("<H", content, at + 6)[0]
    longer = content[: at + 6] + struct.pack("<H", length + 2) + content[at + 8 : at + 8 + length] + b"X " + content[at + 8 + length :]
    (tmp_path / "longer.dcm").write_bytes(longer)
    _, found = read_all([series[0], tmp_path / "longer.dcm"])
    assert isinstance(found, DicomFile)
    assert same(found, read_header(tmp_path / "longer.dcm"))


def test_a_file_that_is_cut_is_noticed_though_its_header_is_whole(series: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(series[1].read_bytes()[:-10])
    _, found = read_all([series[0], tmp_path / "cut.dcm"])
    assert isinstance(found, BadFile)
    assert found.code == "truncated"


def test_the_file_belongs_to_its_path_and_time(series: list[Path]) -> None:
    first, second = read_all(series[:2])
    assert isinstance(first, DicomFile)
    assert isinstance(second, DicomFile)
    assert second.path == series[1]
    assert replace(second, path=first.path) is not first
    assert second.frames[0].position != first.frames[0].position
