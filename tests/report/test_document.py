import re

import pytest

from medssl.report.document import clean, interval, number
from medssl.report.write import write_report


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
