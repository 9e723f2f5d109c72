import csv
import io

from medssl.report.export import table
from medssl.report.write import write_report


def read(path):
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))


def test_every_number_has_a_row(cohort, tmp_path):
    record = write_report(cohort.finish(), tmp_path)
    rows = {(row["unit"], row["metric"]): row for row in read(tmp_path / "metrics.csv")}
    sensitivity = rows["scan", "sensitivity"]
    assert float(sensitivity["value"]) == 0.75 and (sensitivity["k"], sensitivity["n"]) == ("6", "8")
    assert float(sensitivity["low95"]) == record["scan"]["sensitivity"]["ci95"][0]
    assert ("scan, site: north", "sensitivity") in rows and ("segmentation", "dice (mean)") in rows
    assert rows["lesion", "specificity"]["value"] == "" and "cannot be measured" in rows["lesion", "specificity"]["note"]


def test_every_scan_has_a_row_and_no_patient(cohort, tmp_path):
    write_report(cohort.finish(), tmp_path)
    rows = {row["scan_id"]: row for row in read(tmp_path / "scans.csv")}
    assert len(rows) == 17 and rows["bad_0"]["status"] == "rejected" and rows["bad_0"]["score"] == ""
    assert (rows["pos_7"]["label"], rows["pos_7"]["call"], rows["pos_7"]["lesions"], rows["pos_7"]["found"]) == ("1", "negative", "1", "0")
    assert "patient" not in rows["pos_0"]


def test_a_hostile_site_is_no_formula_in_any_table(builder, tmp_path):
    builder.add("a", score=0.9, label=1, site='=HYPERLINK("http://x","y")')
    builder.add("b", score=0.1, label=0, site="@SUM(1)", warnings=("+cmd|' /C calc'!A0",))
    write_report(builder.finish(), tmp_path)
    texts = [(tmp_path / name).read_text() for name in ("metrics.csv", "scans.csv")]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]
    assert any("HYPERLINK" in cell for cell in cells) and any(cell.startswith("'+cmd") for cell in cells)


def test_every_cell_is_quoted():
    text = table(("a", "b"), [{"a": -0.5, "b": 'say "x", y'}])
    assert text == '"a","b"\n"-0.5","say ""x"", y"\n'
    assert next(csv.DictReader(io.StringIO(text)))["b"] == 'say "x", y'
