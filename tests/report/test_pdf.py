import logging
import stat

import pytest

from medssl.report.pdf import find_browser, print_pdf


def program(folder, text):
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<p>report</p>")
    return path


def test_a_machine_without_a_browser_is_told_of(page, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert print_pdf(page) is None
    assert "no chromium" in caplog.text


@pytest.mark.parametrize("text", ["exit 3", "exit 0", "exec sleep 60"])
def test_a_browser_that_fails_prints_nothing_or_hangs_costs_only_the_pdf(page, tmp_path, caplog, text):
    assert print_pdf(page, browser=program(tmp_path, text), limit_s=1) is None
    assert "no report.pdf" in caplog.text


def test_what_the_browser_prints_is_kept(page, tmp_path):
    said = 'for one in "$@"; do case "$one" in --print-to-pdf=*) echo "%PDF" > "${one#--print-to-pdf=}";; esac; done'
    assert print_pdf(page, browser=program(tmp_path, said)) == b"%PDF\n"


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no chromium here")
def test_chromium_prints_a_page(page):
    assert (print_pdf(page) or b"").startswith(b"%PDF-")
