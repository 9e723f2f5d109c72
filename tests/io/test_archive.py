import os
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import NoSpaceError, ScanError, UsageError
from medssl.io import archive as archives
from medssl.io.discover import check_folder, find_sources, read_folder, read_source, read_volume


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch) -> Path:
    """An own folder for temporary files, empty again after every test."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def pack(tmp_path):
    """Writes an archive of members: path to content, or a ZipInfo and its content."""

    def pack(*members: tuple[str | zipfile.ZipInfo, bytes], name: str = "a.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in members:
                archive.writestr(member, content)
        return path

    return pack


def reasons(path: Path) -> tuple[str, ...]:
    (reading,) = read_folder(path)
    return reading.record.reasons


def test_a_scan_in_an_archive_is_read_as_if_it_lay_in_the_folder(pack, write_nifti, voxels):
    path = pack(("in/scan.nii", write_nifti().read_bytes()), ("readme.txt", b"x"))
    (scan,) = check_folder(path.parent)["scans"][:1]
    assert (scan["source"], scan["status"], scan["format"]) == ("a.zip/in/scan.nii", "accepted", "nifti")
    assert np.array_equal(read_volume(path).array[0], voxels)


def test_a_series_in_an_archive_is_one_scan(pack, write_series, voxels):
    folder = write_series()
    path = pack(*((f"p/{each.name}", each.read_bytes()) for each in folder.iterdir()))
    (source,) = find_sources(path)
    assert (source.source, source.scan_id) == ("a.zip/p", find_sources(folder)[0].scan_id)
    volume = read_source(source).volume
    assert np.array_equal(volume.array[0], voxels)


def test_attributes_of_macos_in_an_archive_are_no_scans(pack, write_nifti):
    path = pack(("scan.nii.gz", write_nifti(name="scan.nii.gz").read_bytes()), ("._scan.nii.gz", b"\x00\x05\x16\x07" + bytes(100)))
    (source,) = find_sources(path)
    assert source.source == "a.zip/scan.nii.gz"


def test_a_place_inside_an_archive_can_be_given(pack, write_nifti, voxels):
    scan = write_nifti().read_bytes()
    path = pack(("a/scan.nii", scan), ("b/scan.nii", scan))
    assert np.array_equal(read_volume(path / "a").array[0], voxels)
    assert np.array_equal(read_volume(path / "b" / "scan.nii").array[0], voxels)
    with pytest.raises(ScanError, match="not_a_volume"):
        read_volume(path)
    with pytest.raises(UsageError, match="not_found"):
        find_sources(path / "c")


def test_parts_of_one_scan_stay_together(pack, write_nifti, voxels):
    image = write_nifti(name="scan.img")
    path = pack(*((each.name, each.read_bytes()) for each in (image, image.with_suffix(".hdr"))))
    assert np.array_equal(read_volume(path).array[0], voxels)


def test_sources_outlive_the_private_folder(pack, write_nifti, temporary):
    sources = find_sources(pack(("scan.nii", write_nifti().read_bytes())))
    assert list(temporary.iterdir()) == []
    assert read_source(sources[0]).record.status == "accepted"


def test_an_archive_that_changes_between_finding_and_reading_is_refused(pack, write_nifti):
    path = pack(("scan.nii", write_nifti().read_bytes()))
    (source,) = find_sources(path)
    os.utime(path, (1, 1))
    assert read_source(source).record.reasons == ("changed_while_read",)


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


REFUSED = {
    "up": ("path_escape", [("../scan.nii", b"x")]),
    "up inside": ("path_escape", [("a/../../scan.nii", b"x")]),
    "absolute": ("path_escape", [("/tmp/medssl_pwn.txt", b"x")]),
    "backslash": ("path_escape", [("..\\scan.nii", b"x")]),
    "drive": ("path_escape", [("C:/scan.nii", b"x")]),
    "folder up": ("path_escape", [("../", b"")]),
    "control": ("bad_header", [("scan\n.nii", b"x")]),
    "link": ("symlink", [(special("scan.nii", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
    "pipe": ("not_a_file", [(special("scan.nii", stat.S_IFIFO | 0o666), b"")]),
    "case": ("conflicting_rows", [("scan.nii", b"x"), ("SCAN.NII", b"y")]),
    "file and folder": ("conflicting_rows", [("scan.nii", b"x"), ("scan.nii/a", b"y")]),
    "bomb": ("inflated_size", [("scan.nii", bytes(40 << 20))]),
    "nothing": ("no_files", []),
    "texts": ("no_files", [("readme.txt", b"x")]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_archive_is_one_refusal_by_name(pack, case):
    code, members = REFUSED[case]
    assert reasons(pack(*members)) == (code,)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused_unless_its_content_is_equal(pack, write_nifti):
    scan = write_nifti().read_bytes()
    assert reasons(pack(("scan.nii", scan), ("scan.nii", scan + b"x"))) == ("conflicting_rows",)
    assert reasons(pack(("scan.nii", scan), ("scan.nii", scan))) == ()


def test_a_nested_archive_is_not_opened(pack, write_nifti):
    inner = pack(("scan.nii", write_nifti().read_bytes()), name="inner.zip")
    assert reasons(pack(("b.zip", inner.read_bytes()), name="outer.zip")) == ("nested_archive",)


def test_an_archive_with_too_many_members_is_refused_before_they_are_listed(pack, monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_CAP", 5)
    path = pack(*((f"{number}.nii", b"") for number in range(5)))
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert reasons(path) == ("member_count",)


def test_members_that_the_end_record_does_not_count_are_counted_all_the_same(pack, monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_CAP", 5)
    path = pack(*((f"{number}.nii", b"") for number in range(5)))
    raw = bytearray(path.read_bytes())
    raw[-14:-10] = struct.pack("<HH", 1, 1)
    path.write_bytes(raw)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert reasons(path) == ("member_count",)


def test_an_encrypted_member_is_refused(pack):
    path = pack(("scan.nii", b"x"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert reasons(path) == ("encrypted",)


def test_a_compression_that_can_take_any_memory_is_refused(pack):
    assert reasons(pack(("scan.nii", b"x"), method=zipfile.ZIP_LZMA)) == ("unsupported_format",)


def test_a_member_that_declares_less_than_it_holds_is_refused(pack):
    path = pack(("scan.nii", bytes(1 << 20)))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 5)
    path.write_bytes(raw)
    assert reasons(path) == ("corrupt_archive",)


@pytest.mark.parametrize("at", [50, -60, -5])
def test_a_damaged_archive_is_refused(pack, write_nifti, at):
    path = pack(("scan.nii", write_nifti().read_bytes()))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)
    assert reasons(path) == ("corrupt_archive",)


def test_a_cut_archive_and_a_text_called_zip_are_refused(pack, write_nifti):
    path = pack(("scan.nii", write_nifti().read_bytes()))
    path.write_bytes(path.read_bytes()[:-30])
    assert reasons(path) == ("corrupt_archive",)
    path.write_text("<html>not found</html>")
    assert reasons(path) == ("corrupt_archive",)


def test_an_office_file_or_a_checkpoint_is_no_archive_of_scans(pack):
    assert reasons(pack(("xl/workbook.xml", b"x"), name="table.xlsx")) == ("not_a_scan",)


def test_what_macos_adds_to_an_archive_is_left_out(pack, write_nifti):
    path = pack(("scan.nii", write_nifti().read_bytes()), ("__MACOSX/._scan.nii", b"\0\5\x16\7"))
    assert reasons(path) == ()


def test_a_full_disk_is_named_and_leaves_nothing_behind(pack, write_nifti, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = pack(("scan.nii", write_nifti().read_bytes()))
    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(NoSpaceError, match="TMPDIR"):
        find_sources(path)
