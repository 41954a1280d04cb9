"""A real browser for tests, with its console messages and requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1300,1000"
)

needs_browser = pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium, chromedriver")


@contextmanager
def started() -> Iterator[webdriver.Chrome]:
    """Start a browser that logs its console."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(browser: webdriver.Chrome) -> list[str]:
    names = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    return [name for name in browser.execute_script(names) if not name.startswith(("data:", "blob:"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with started() as driver:
        yield driver


def opened(browser: webdriver.Chrome, path: Path, n_plots: int, width: int = 1300) -> webdriver.Chrome:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")  # drop the messages of earlier pages
    browser.get(path.as_uri())
    drawn = "return document.querySelectorAll('.js-plotly-plot .main-svg:first-of-type .cartesianlayer').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(drawn) == n_plots)
    return browser
