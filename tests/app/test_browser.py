"""The app in a real browser: what a reviewer sees, and that nothing leaves the machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.browser

APP = Path(__file__).resolve().parents[2] / "app" / "review.py"
CHROMIUM = Path("/usr/bin/chromium")
DISCLAIMER = "Research use only. Not a medical device."
LOCAL = {"127.0.0.1", "", None}


@pytest.fixture
def address(results):
    """Address of the app, served from the results folder on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--server.address", "127.0.0.1", "--server.port", str(port), "--server.headless", "true"]
    quiet = ["--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none", "--client.toolbarMode", "minimal"]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *flags, *quiet, "--", str(results)]
    path = os.pathsep.join(filter(None, [str(APP.parents[1]), os.environ.get("PYTHONPATH", "")]))
    server = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def wait_for(health: str, server: subprocess.Popen) -> None:
    for _ in range(120):
        assert server.poll() is None, "streamlit ended at its start"
        try:
            with urlopen(health, timeout=2):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.25)
    pytest.fail("streamlit did not answer in 30 s")


@pytest.fixture
def page():
    """A page of a headless browser; `requests` of the page are kept in `seen`."""
    if not CHROMIUM.exists() and shutil.which("chromium") is None:
        message = "no chromium at /usr/bin/chromium: apt-get install -y --no-install-recommends chromium"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1440, "height": 1000})
        browser.close()


def test_a_reviewer_sees_worklist_slice_and_disclaimer_and_saves_a_verdict(address, page, tmp_path):
    seen = []
    page.on("request", lambda request: seen.append(request.url))
    page.goto(address)
    page.get_by_text(DISCLAIMER).wait_for()
    page.get_by_test_id("stDataFrame").first.wait_for()
    slice_image = page.get_by_test_id("stImage").locator("img")
    slice_image.wait_for()
    page.wait_for_function("() => document.querySelector('[data-testid=stImage] img').naturalWidth >= 300")
    page.screenshot(path=tmp_path / "reading.png")
    page.get_by_label("Reviewer").fill("AB")
    page.keyboard.press("Enter")
    page.get_by_text("disagree", exact=True).first.click()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved: disagree on case_a").wait_for()
    page.screenshot(path=tmp_path / "saved.png")
    assert {urlsplit(url).hostname for url in seen} <= LOCAL


def test_the_window_of_the_next_scan_outlives_a_step_through_its_slices(address, page, tmp_path):
    page.goto(address)
    page.get_by_text("Axial slice 5 of 6").wait_for()
    page.get_by_role("button", name="Next Shortcut N").click()
    page.get_by_text("slice score 0.600").wait_for()
    page.keyboard.press("k")
    page.get_by_text("Axial slice 6 of 6").wait_for()
    page.get_by_role("button", name="Display").click()
    window = page.get_by_test_id("stSlider").filter(has_text="Window")
    window.wait_for()
    page.screenshot(path=tmp_path / "display.png")
    value, least = (float(text) for text in window.inner_text().split()[1:3])
    assert value > 5 * least


@pytest.mark.parametrize(
    ("screen", "shows"),
    [("Operating point", "Sensitivity"), ("Report", "Rejected scans"), ("Decisions", "No decision has been saved")],
)
def test_every_other_screen_shows_in_the_browser_without_a_foreign_request(address, page, tmp_path, screen, shows):
    seen = []
    page.on("request", lambda request: seen.append(request.url))
    page.goto(address)
    page.get_by_role("radio", name=screen).click()
    page.get_by_text(shows).first.wait_for()
    assert page.get_by_text(DISCLAIMER).is_visible()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / f"{screen.replace(' ', '_')}.png")
    assert {urlsplit(url).hostname for url in seen} <= LOCAL
