import pytest

from medssl.cells import plain, safe


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
def test_a_text_that_begins_like_a_formula_gets_a_quote_in_front(text):
    assert safe(text) == f"'{text}"


def test_other_texts_and_numbers_stay_as_they_are():
    assert [safe(value) for value in ("north", "'north", "", -1.5, 0, None)] == ["north", "'north", "", -1.5, 0, ""]


@pytest.mark.parametrize("text", ["", "north", "'", "'north", "=1", "'=1", "''=1", "-", "a=b"])
def test_a_text_is_read_as_it_was_written(text):
    assert plain(safe(text)) == text
