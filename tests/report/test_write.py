import json
import subprocess
import sys

import numpy as np
import pytest

from medssl.report.write import write_report


def test_a_report_is_numbers_a_document_and_figures(cohort, tmp_path):
    out = tmp_path / "out"
    record = write_report(cohort.finish(), out)
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(record))
    assert (out / "report.html").stat().st_size > 100_000
    names = {path.stem for path in (out / "figures").iterdir()}
    assert {"roc", "precision_recall", "confusion", "scores", "reliability", "froc", "dice"} <= names
    assert {name.partition("_")[0] for name in names if name.startswith("example")} == {"example"}
    assert not [path for path in out.rglob(".*")]


def test_a_reference_given_by_hand_is_used(builder, tmp_path):
    builder.add("a", score=0.9, label=1)
    builder.add("b", score=0.1, label=0)
    folder = builder.finish(reference=False)
    builder.write_reference(tmp_path / "truth.csv")
    record = write_report(folder, tmp_path / "out", reference=tmp_path / "truth.csv")
    assert record["scan"]["n"] == 2


def test_a_second_report_takes_away_only_its_own_old_pictures(cohort):
    folder = cohort.finish()
    (folder / "figures").mkdir()
    (folder / "figures" / "mine.png").write_bytes(b"x")
    old = {f"example_{number}_false_negative.png" for number in (99, 199)}
    for name in old:
        (folder / "figures" / name).write_bytes(b"x")
    write_report(folder, folder)
    names = {path.name for path in (folder / "figures").iterdir()}
    assert "mine.png" in names and not old & names


def test_scans_that_were_all_rejected_give_a_report(builder):
    builder.reject("a", "truncated", label=1)
    folder = builder.finish()
    assert write_report(folder, folder)["flow"]["rejected_by_code"] == {"truncated": 1}


def test_a_classifier_of_images_without_maps_gives_a_report(builder):
    generator = np.random.default_rng(0)
    for index in range(12):
        label = index % 2
        score = float(np.clip(label * 0.4 + generator.uniform(0, 0.6), 0, 1))
        builder.add(f"s{index}", score=score, label=label, maps=False, shape=(24, 20, 1), slice_scores=[score])
    folder = builder.finish(task="classification")
    record = write_report(folder, folder)
    assert record["slice"]["n"] == 12 and record["segmentation"]["per_scan"] == []
    assert record["lesion"]["sensitivity"]["value"] is None


def test_a_damaged_map_costs_one_scan_and_is_told(cohort):
    (cohort.folder / "maps" / "pos_0_mask.nii.gz").write_bytes(b"not a nifti")
    folder = cohort.finish()
    record = write_report(folder, folder)
    assert record["scan"]["n"] == 16 and record["flow"]["analysed"]["segmentation"] == 15
    assert any("not_nifti" in note for note in record["notes"])


@pytest.mark.parametrize("pdf", [True, False])
def test_a_pdf_of_an_earlier_report_does_not_stay_beside_new_numbers(builder, tmp_path, monkeypatch, pdf):
    builder.add("a", score=0.9, label=1)
    (tmp_path / "report.pdf").write_bytes(b"old")
    monkeypatch.setenv("PATH", "")  # no browser to print with
    write_report(builder.finish(), tmp_path, pdf=pdf)
    assert not (tmp_path / "report.pdf").exists()


def test_a_printed_report_is_written_whole(builder, tmp_path, monkeypatch):
    builder.add("a", score=0.9, label=1)
    monkeypatch.setattr("medssl.report.write.print_pdf", lambda page: b"%PDF of " + page.name.encode())
    write_report(builder.finish(), tmp_path, pdf=True)
    assert (tmp_path / "report.pdf").read_bytes() == b"%PDF of report.html"


def test_the_report_starts_without_torch():
    code = "import sys, medssl.report.write; print({'torch', 'matplotlib', 'sklearn', 'scipy.stats', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
