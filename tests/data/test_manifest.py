"""Reading and writing the manifest: what is refused, and by which name."""

from dataclasses import replace
from pathlib import Path

import pytest

from medssl.data.manifest import Manifest, ManifestRow, row_warnings, scan_id_of
from medssl.errors import ManifestError

ROW = ManifestRow("a", "P1", "a.nii.gz", split="train", label="normal", nominal=True)


def refused(path: Path, data: str | bytes, root: Path | None = None) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ManifestError) as caught:
        Manifest.read(path, root=root)
    return caught.value.code


def test_a_manifest_reads_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest((ROW, ManifestRow("b", "P2", "x/f.nii;x/t.nii", lesion="x/l.nii", has_lesion="1")))
    manifest.write(tmp_path / "manifest.csv")
    assert Manifest.read(tmp_path / "manifest.csv") == manifest


def test_writing_leaves_no_other_file(tmp_path: Path) -> None:
    Manifest((ROW,)).write(tmp_path / "manifest.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_the_digest_ignores_what_is_only_told_in_reports() -> None:
    told = replace(ROW, vendor="GE", field="3 T", slice_mm="3", leakage="allowed")
    assert Manifest((told,)).digest() == Manifest((ROW,)).digest() != Manifest((replace(ROW, age="40"),)).digest()


def test_the_digest_ignores_the_order_of_rows() -> None:
    other = ManifestRow("b", "P2", "b.nii.gz")
    assert Manifest((ROW, other)).digest() == Manifest((other, ROW)).digest() != Manifest((ROW,)).digest()


def test_a_split_holds_its_rows_only() -> None:
    manifest = Manifest((ROW, ManifestRow("b", "P2", "b.nii", split="test", label="lesion")))
    assert [row.scan_id for row in manifest.split("test")] == ["b"]
    assert manifest.class_names() == ("lesion", "normal")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"path,label\na\0b.nii,1\n", "encoding"),
        ("path,site\nä.nii,x\n".encode("latin-1"), "encoding"),
        ("path,label\nx,1\n".encode("utf-16"), "encoding"),
        ("nii_int16.nii,P1,1\n", "missing_column"),
        ("image,patient\n", "no_rows"),
        ("image,patient\na.nii,P1,extra\n", "bad_row"),
        ("image,patient\na.nii\n", "bad_row"),
        ('image,patient\n"a.nii,P1\n', "bad_row"),
        ("image,patient,patient\na.nii,P1,P1\n", "bad_row"),
        ("image,patient\n,P1\n", "bad_row"),
        ("image,patient\n;; ,P1\n", "bad_row"),
        ("image,patient\na.nii;../b.nii,P1\n", "path_escape"),
        ("image,label\na.nii,\n", "bad_label"),
        ("image,label\na.nii,NaN\n", "bad_label"),
        ("image,label\na.nii,0.5\n", "bad_label"),
        ("image,label\nhttp://host/a.nii,1\n", "not_a_path"),
        ("image,label\nfile:///a.nii,1\n", "not_a_path"),
        ("image,label\n//host/a.nii,1\n", "not_a_path"),
        ("image,label\n/etc/passwd,1\n", "path_escape"),
        ("image,label\nC:\\a.nii,1\n", "path_escape"),
        ("image,label\n../a.nii,1\n", "path_escape"),
        ("image,label\nx\\..\\..\\a.nii,1\n", "path_escape"),
        ("image,lesion\na.nii,../b.nii\n", "path_escape"),
        ("image,defaced\na.nii,../b.nii\n", "path_escape"),
        ("image,patient,label\na.nii,P1,1\n./a.nii,P1,0\n", "conflicting_rows"),
        ("image,patient,split\na.nii,P1,train\nb.nii,p1 ,test\n", "patient_leak"),
        ("scan_id,image\n../a,a.nii\n", "bad_row"),
        ("scan_id,image\nx,a.nii\nx,b.nii\n", "conflicting_rows"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path: Path, data: str | bytes, code: str) -> None:
    assert refused(tmp_path / "t.csv", data) == code


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not_found"):
        Manifest.read(tmp_path / "t.csv")


def test_no_message_shows_a_patient(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("secret.nii,SECRET,1\n")
    with pytest.raises(ManifestError) as caught:
        Manifest.read(tmp_path / "t.csv")
    assert "secret" not in str(caught.value).casefold()


def test_a_byte_order_mark_semicolons_and_crlf_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath;patient;label\r\na.nii;P1;1\r\n")
    assert Manifest.read(tmp_path / "t.csv").rows[0] == ManifestRow("a", "P1", "a.nii", label="1")


def test_a_path_may_be_relative_to_the_table_while_it_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "scan.nii").touch()
    (tmp_path / "lists/t.csv").write_text("path,label\n../scan.nii,1\n")
    assert Manifest.read(tmp_path / "lists/t.csv", root=tmp_path).rows[0].image == "scan.nii"


def test_a_path_through_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path)
    assert refused(tmp_path / "data/t.csv", "path,label\nlink/t.csv,1\n", root=tmp_path / "data") == "path_escape"


def test_an_unknown_label_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient,label\na.nii,P1,unknown\n")
    assert Manifest.read(tmp_path / "t.csv").rows[0].label == ""


def test_a_repeated_row_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient,label\na.nii,P1,1\na.nii,p1,1\n")
    assert len(Manifest.read(tmp_path / "t.csv").rows) == 1


def test_a_cell_that_a_spreadsheet_would_run_is_kept_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient,label\na.nii,=cmd|' /C calc'!A0,1\n")
    row = Manifest.read(tmp_path / "t.csv").rows[0]
    assert row.patient.startswith("=cmd")
    assert row_warnings(row) == ("formula_text",)
    assert row_warnings(ROW) == ()


def test_scan_ids_come_from_the_path_and_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient\nx/a.nii,P1\nx/a.nii.gz,P2\n")
    assert [row.scan_id for row in Manifest.read(tmp_path / "t.csv").rows] == ["x__a", "x__a-2"]
    assert len(scan_id_of("x" * 500)) == 100


def test_without_a_patient_column_the_image_is_the_patient(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image\nimages/a.png\nimages/b.png\n")
    assert [row.patient for row in Manifest.read(tmp_path / "t.csv").rows] == ["a", "b"]


def test_all_scans_of_a_patient_have_the_first_spelling_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient\na.png,Pat 3\nb.png,pat3\nc.png,PAT 4\n")
    assert [row.patient for row in Manifest.read(tmp_path / "t.csv").rows] == ["Pat 3", "Pat 3", "PAT 4"]


def test_a_sequence_that_a_scan_lacks_is_left_empty_and_warned_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient\n;x/t1.nii ;x/t2.nii,P1\n")
    (row,) = Manifest.read(tmp_path / "t.csv").rows
    assert (row.image, row.sources, row.scan_id) == (";x/t1.nii;x/t2.nii", ("x/t1.nii", "x/t2.nii"), "x__t1")
    assert row_warnings(row) == ("missing_sequence",)


def test_a_report_keeps_its_lines_commas_and_quotes(tmp_path: Path) -> None:
    said = 'No lesion, "none at all".\nLeft ventricle: normal; größe 3 mm.'
    Manifest((ManifestRow("a", "P1", "a.nii", report=said),)).write(tmp_path / "manifest.csv")
    assert Manifest.read(tmp_path / "manifest.csv").rows[0].report == said
