import re

import pytest

from medssl.report.cases import read_results
from medssl.report.document import clean, interval, number, render
from medssl.report.evidence import gather
from medssl.report.metrics import build_metrics
from medssl.report.write import write_report

TEMPERED = {"unit": "scan", "temperature": 1.9, "note": "", "n": 40, "n_positive": 18, "loss_before": 0.6, "loss_after": 0.5}


@pytest.fixture
def page(cohort):
    folder = cohort.finish()
    write_report(folder, folder)
    return (folder / "report.html").read_text()


def test_the_document_needs_nothing_from_outside(page):
    addresses = re.findall(r"(?:src|href)=\"([^\"]{1,12})", page)
    assert set(addresses) == {"data:image/p"}
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "<script" not in page


def test_the_document_states_what_it_is_and_what_made_it(page):
    for words in (
        "Research use only. Not a medical device.",
        "model0123456789",
        "2.13",
        "youden",
        "2026-01-01",
        "6/8",
        "0.750",
        "missing_slice",
    ):
        assert words in page


def test_the_document_lists_every_miss(page):
    assert "Every missed scan" in page and page.count("Missed: false negative") == 2


def test_text_from_scans_is_escaped(builder):
    builder.add("a", score=0.9, label=1, site="<script>alert(1)</script>", warnings=("<img src=x onerror=1>",))
    builder.add("b", score=0.1, label=0, site="\u202eevil")
    folder = builder.finish(model_id="<b>m</b>")
    write_report(folder, folder)
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "<b>m</b>" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_the_document_without_truth_says_so(builder):
    builder.add("a", score=0.9)
    folder = builder.finish(reference=False)
    write_report(folder, folder)
    page = (folder / "report.html").read_text()
    assert "There is no reference" in page and "cannot be measured" in page and "High score" in page


def test_a_threshold_that_comes_from_slices_says_how_many_they_were(cohort):
    point = {"threshold": 0.5, "rule": "that of slices (youden): no validation scan without lesion", "chosen_on": "validation", "n": 361}
    folder = cohort.finish(operating_points={"scan": point})
    write_report(folder, folder)
    assert "validation (361 slices)" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({}, "Recalibration: not recorded."),
        ({"calibration": {}}, "Recalibration: none"),
        (
            {"calibration": {"scan": TEMPERED}},
            "at temperature 1.900 (the logit is divided by it), fitted on 40 scans, 18 positive, of validation.",
        ),
        (
            {"calibration": {"scan": TEMPERED | {"note": "not fitted: 2 positives"}}},
            "as they are, a temperature was not fitted: 2 positives.",
        ),
    ],
)
def test_the_document_says_whether_scores_were_recalibrated_and_on_what(builder, run, said):
    builder.add("a", score=0.9, label=1)
    assert said in render(build_metrics(gather(read_results(builder.finish(**run)))), pictures=[], examples=[])


def test_a_small_p_of_subgroups_is_not_nothing(builder):
    builder.add("a", score=0.9, label=1)
    record = build_metrics(gather(read_results(builder.finish())))
    record["subgroup_tests"]["tests"] = [{"kind": "site", "rate": "sensitivity", "groups": 2, "p": 0.0001, "p_holm": 0.0002}]
    assert render(record, pictures=[], examples=[]).count("&lt; 0.001") == 2


def test_the_half_that_was_added_to_a_table_is_told_beside_predictive_values(builder):
    for index in range(8):
        builder.add(f"s{index}", score=0.9 if index % 2 else 0.1, label=index % 2, patient=f"p{index}", maps=False)
    page = render(build_metrics(gather(read_results(builder.finish()))), pictures=[], examples=[])
    assert "PPV: 1/2 was added to every cell" in page and "NPV: 1/2 was added to every cell" in page


def test_scans_without_geometry_are_shown_in_voxels(builder):
    builder.nominal = True
    builder.add("a", score=0.9, label=1)
    folder = builder.finish()
    write_report(folder, folder)
    page = (folder / "report.html").read_text()
    assert "HD95 (voxels)" in page and "nominal ml" in page and "HD95 (mm)" not in page


def test_numbers_that_are_not_there_are_dashes():
    assert (number(None), number(float("nan")), interval([None, None]), number(0.12345)) == ("–", "–", "–", "0.123")


def test_control_characters_are_taken_out():
    assert clean("a\u202e\x00b\nc") == "ab c"
