"""The HTML of a comparison in a real browser: what is drawn, choosing by keyboard, and where plotly.js comes from."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from toys.chromium import complaints, needs_browser, requests, started
from toys.results import make_result

from layerangles import AngleResult
from layerangles.app.notebook import comparison_html
from layerangles.figures.drawing.export import document

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews" / "angles"
HOSTILE = "</script><b>&\"'"
LAB_EXTENSION = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "jupyterlab-plotly" / "static"

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with started() as driver:
        yield driver


@pytest.fixture(scope="module")
def course() -> AngleResult:
    return AngleResult.load(RESULTS / "course-seed0.nc")


def opened(browser: webdriver.Chrome, path: Path, page: str, width: int = 1300) -> webdriver.Chrome:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    return browser


def shown(browser: webdriver.Chrome, tmp_path: Path, results: Sequence[AngleResult], *names: str) -> webdriver.Chrome:
    """A page that has plotly.js and a comparison, once it is drawn."""
    page = document("comparison", comparison_html(results, *names), "body{margin:16px}")
    opened(browser, tmp_path / "page.html", page)
    return drawn(browser)


def drawn(browser: webdriver.Chrome) -> webdriver.Chrome:
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return !!document.querySelector('.maps .hm')"))
    return browser


def values(browser: webdriver.Chrome) -> list[Any]:
    """The values of the three maps, as plotly.js has them."""
    script = "return document.querySelector('.maps').data.filter(t => t.type === 'heatmap').map(t => t.z)"
    return [np.array(z, dtype=float) for z in browser.execute_script(script)]


def titles(browser: webdriver.Chrome) -> list[str]:
    texts = "return document.querySelector('.maps').layout.annotations.map(a => [a.xref, a.text])"
    return [text for xref, text in browser.execute_script(texts) if "domain" in xref]


def control(browser: webdriver.Chrome, name: str) -> Any:
    labels = browser.find_elements(By.CSS_SELECTOR, ".layerangles-compare label")
    label = next(label for label in labels if label.text.startswith(name))
    return label.find_element(By.CSS_SELECTOR, "select, input")


def readout(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.CLASS_NAME, "readout").text


def test_the_stored_page_shows_two_maps_and_their_difference(browser, tmp_path, course):
    shown(browser, tmp_path, [course], "none-seed0", "forward-seed0@40")
    assert browser.execute_script("return document.querySelectorAll('.heatmaplayer .hm').length") == 3
    data = course.dataset.sel(tower="encoder", student_layer=1)["angle_deg"].transpose(..., "layer_a", "layer_b")
    first, second = data.sel(student="none-seed0", step=200).values, data.sel(student="forward-seed0", step=40).values
    for found, expected in zip(values(browser), (first, second, second - first), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.011)
    assert titles(browser) == ["none-seed0, step 200", "forward-seed0, step 40", "difference: second − first"]
    texts = browser.execute_script("return [...document.querySelectorAll('.textpoint')].map(t => t.textContent)")
    assert f"{first[0, 1]:.1f}" in texts
    assert complaints(browser) == []
    assert requests(browser) == []


def test_checkpoints_and_layer_are_chosen_by_keyboard(browser, tmp_path, course):
    shown(browser, tmp_path, [course], "none-seed0", "forward-seed0@40")
    control(browser, "second").send_keys("reverse-seed0, step 40")
    control(browser, "student layer").send_keys(Keys.ARROW_RIGHT)
    assert titles(browser)[1] == "reverse-seed0, step 40"
    assert "student layer 2" in browser.find_element(By.TAG_NAME, "form").text
    expected = course.dataset["angle_deg"].sel(student="reverse-seed0", step=40, tower="encoder", student_layer=2)
    np.testing.assert_allclose(values(browser)[1], expected.transpose("layer_a", "layer_b").values, atol=0.011)
    control(browser, "first").send_keys(Keys.ARROW_UP)
    assert titles(browser)[0] == "none-seed0, step 40"
    assert "none-seed0, step 40" in readout(browser)
    assert complaints(browser) == []


def test_the_excess_is_shown_on_a_scale_around_zero(browser, tmp_path, course):
    shown(browser, tmp_path, [course], "none-seed0", "forward-seed0")
    Select(control(browser, "shown")).select_by_visible_text("excess over N1")
    data = course.dataset["excess_deg"].sel(step=200, null="N1", tower="encoder", student_layer=1)
    both = data.sel(student=["none-seed0", "forward-seed0"]).transpose("student", "layer_a", "layer_b").values
    np.testing.assert_allclose(values(browser)[:2], both, atol=0.011)
    axis = browser.execute_script("return document.querySelector('.maps').layout.coloraxis")
    assert axis["cmax"] == -axis["cmin"] == pytest.approx(np.nanmax(np.abs(both)), abs=0.011)
    Select(control(browser, "shown")).select_by_visible_text("mean angle")
    assert browser.execute_script("return document.querySelector('.maps').layout.coloraxis.cmin") == 0
    assert complaints(browser) == []


def test_missing_maps_and_layers_are_explained_in_their_place(browser, tmp_path):
    two = make_result(("a",), towers=("encoder", "decoder"), blank=((0, 1, 2),))
    other = make_result((HOSTILE,), n_teacher=6, n_student=2, matched=())
    shown(browser, tmp_path, [two, other])
    assert "the teachers differ in depth" in titles(browser)
    assert browser.find_elements(By.CSS_SELECTOR, ".maps b") == []
    assert HOSTILE in readout(browser)
    Select(control(browser, "tower")).select_by_visible_text("decoder")
    control(browser, "student layer").send_keys(Keys.ARROW_RIGHT)
    assert any(title.startswith("no map") for title in titles(browser))
    assert "no such layer" in titles(browser)
    assert complaints(browser) == []


def test_a_difference_of_unlike_measurements_carries_a_warning(browser, tmp_path, course):
    some = AngleResult(course.dataset.sel(student=["none-seed0"]))
    changed = AngleResult(some.dataset.assign_attrs(data_sha256="another"))
    shown(browser, tmp_path, [some, changed], "none-seed0", "none-seed0 (2)")
    odd = "were not measured on the same teacher and texts in the same way"
    assert odd in readout(browser)
    Select(control(browser, "second")).select_by_visible_text("none-seed0, step 0")
    assert odd not in readout(browser)


@pytest.mark.parametrize("width", [1300, 400])
def test_the_comparison_is_never_wider_than_its_window(browser, tmp_path, course, width):
    page = document("comparison", comparison_html([course]), "body{margin:16px}")
    drawn(opened(browser, tmp_path / "page.html", page, width))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_two_comparisons_on_one_page_are_both_drawn(browser, tmp_path, course):
    html = comparison_html([course], "none-seed0") + comparison_html([course], "forward-seed0")
    drawn(opened(browser, tmp_path / "page.html", document("two", html, "")))
    count = "return document.querySelectorAll('.maps .heatmaplayer .hm').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(count) == 6)


def test_jupyterlabs_extension_lends_its_plotly_without_a_network(browser, tmp_path, course):
    entries = list(LAB_EXTENSION.glob("remoteEntry*.js"))
    if not entries:
        pytest.skip("plotly's extension of JupyterLab is not installed")
    lab = (
        f'<!doctype html><meta charset="utf-8"><script>var _JUPYTERLAB</script><script src="{entries[0].as_uri()}">'
        '</script><script>_JUPYTERLAB["jupyterlab-plotly"].init({})</script><body>'
    )
    opened(browser, tmp_path / "lab.html", lab + comparison_html([course], "none-seed0", "forward-seed0"))
    drawn(browser)
    assert complaints(browser) == []
    assert [name for name in requests(browser) if not name.startswith("file:")] == []


def test_without_plotly_the_page_shows_means_and_how_to_get_plotly(browser, tmp_path, course):
    html = re.sub(r"https://cdn\.plot\.ly/", "file:///nowhere/", comparison_html([course], "none-seed0"))
    opened(browser, tmp_path / "bare.html", f'<!doctype html><meta charset="utf-8">{html}')
    WebDriverWait(browser, 30).until(lambda b: "could not be loaded from" in readout(b))
    assert "mean angle" in readout(browser)  # the means are there all the same
    assert "init_notebook_mode" in readout(browser)
