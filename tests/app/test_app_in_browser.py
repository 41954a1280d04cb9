"""``layerangles compare`` as people use it: the command is started, and a real browser drives the page."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from toys.chromium import complaints, needs_browser, requests, started

from layerangles import AngleResult

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews"
FIRST = ("none-seed1", "forward-seed1")  # the students that are finished when the app is opened

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that is being written: two students are finished, and the angles of two seeds are stored."""
    folder = tmp_path_factory.mktemp("growing") / "reviews"
    (folder / "angles").mkdir(parents=True)
    shutil.copy(RESULTS / "study.resolved.yaml", folder)
    for name in ("course-seed0.nc", "final-seed1.nc"):
        shutil.copy(RESULTS / "angles" / name, folder / "angles")
    for name in ("metrics.jsonl", "examples.jsonl"):
        lines = (RESULTS / name).read_text().splitlines(keepends=True)
        mine = [line for line in lines if json.loads(line)["student"] in (*FIRST, "teacher")]
        (folder / name).write_text("".join(mine))
    return folder


@pytest.fixture(scope="module")
def address(growing: Path, study_with_steps: Sequence[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, started as a command: the growing study, and two students to be measured."""
    folder = tmp_path_factory.mktemp("app")
    texts = folder / "texts.txt"
    texts.write_text("the cat sat on the mat\na dog ran over the hill and far away\nthe bird sang\n" * 4)
    # As deep as the original, since a student names its teacher by a relative path.
    shutil.copytree(study_with_steps[0].parent, folder / "students")
    students = [folder / "students" / path.name for path in study_with_steps]
    command = [
        *(str(Path(sys.executable).with_name("layerangles")), "compare", str(growing)),
        *map(str, students),
        *("--data", str(texts), "--port", "0", "--no-browser", "--device", "cpu"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + process.stdout.read()
        yield found.group()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stdout.read()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    with started() as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield driver


@pytest.fixture(autouse=True)
def no_complaints(browser: webdriver.Chrome) -> Iterator[None]:
    browser.get_log("browser")
    yield
    assert complaints(browser) == []


def wait(browser: webdriver.Chrome, condition: Callable[[], Any], seconds: float = 30) -> Any:
    return WebDriverWait(browser, seconds, 0.1).until(lambda _: condition())


def view(browser: webdriver.Chrome) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(browser.current_url).query).items()}


def opened(browser: webdriver.Chrome, address: str, width: int = 1400, **asked: object) -> webdriver.Chrome:
    """The page of a view, once it has answered: the address then names all that the page has chosen."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{address}?{urlencode(asked)}")
    wait(browser, lambda: {"first", "second", "aggregation"} <= set(view(browser)))
    return settled(browser)


def settled(browser: webdriver.Chrome) -> webdriver.Chrome:
    """Wait until no request is under way and the maps are drawn."""
    drawn = "!!document.querySelector('#maps .annotation-text')"
    quiet = f"return !document.querySelector('[data-dash-is-loading]') && {drawn}"
    wait(browser, lambda: browser.execute_script(quiet))
    time.sleep(0.3)
    wait(browser, lambda: browser.execute_script(quiet))
    return browser


def choose(browser: webdriver.Chrome, identity: str, text: str) -> None:
    """In a dropdown, as people do: open it, search, take the first."""
    before = browser.current_url
    browser.find_element(By.ID, identity).click()
    search = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".dash-dropdown-search"))
    search.send_keys(text)
    option = f"//div[contains(@class,'dash-dropdown-options')]//label[normalize-space()='{text}']"
    wait(browser, lambda: browser.find_element(By.XPATH, option)).click()
    wait(browser, lambda: browser.current_url != before)
    settled(browser)


def changed(browser: webdriver.Chrome, action: Callable[[], object]) -> dict[str, str]:
    """The view after an action that changes it."""
    before = browser.current_url
    action()
    wait(browser, lambda: browser.current_url != before)
    settled(browser)
    return view(browser)


def written(browser: webdriver.Chrome, number: int) -> list[str]:
    """The values that stand in the cells of one of the three maps."""
    script = "return document.getElementById('maps').querySelector('.js-plotly-plot').data.map(t => [t.xaxis, t.text])"
    axis = "x" if number == 0 else f"x{number + 1}"
    found = [text for name, text in browser.execute_script(script) if (name or "x") == axis and text]
    return list(found[0]) if found else []


def said(browser: webdriver.Chrome) -> str:
    return " ".join(
        browser.execute_script("return [...document.querySelectorAll('#maps text')].map(t => t.textContent)")
    )


def press(browser: webdriver.Chrome, selector: str, *keys: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)
    ActionChains(browser).send_keys(*keys).perform()


def angles(name: str = "course-seed0.nc") -> Any:
    return AngleResult.load(RESULTS / "angles" / name).dataset.isel(tower=0)


def test_the_page_opens_and_asks_no_other_host(browser, address):
    opened(browser, address)
    assert all(name.startswith(address) for name in requests(browser))
    assert browser.find_element(By.ID, "caption").text.startswith("Angles between teacher layers")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#maps .heatmaplayer .hm")) == 3
    assert browser.find_element(By.ID, "course").is_displayed() is (view(browser).get("step") is not None)
    assert not browser.find_element(By.ID, "tower-field").is_displayed()  # there is one tower


def test_both_checkpoints_are_chosen_in_dropdowns(browser, address):
    opened(browser, address, first="reverse-seed0", second="none-seed0")
    choose(browser, "first-strategy", "forward")
    assert view(browser)["first"] == "forward-seed0"
    choose(browser, "first-step", "0")
    assert view(browser)["first_step"] == "0"
    choose(browser, "second-strategy", "reverse")
    assert view(browser)["second"] == "reverse-seed0"
    of = angles()["angle_deg"].sel(student_layer=1)
    one, other = (of.sel(student=n, step=s).values for n, s in (("forward-seed0", 0), ("reverse-seed0", 200)))
    for number, values in enumerate((one, other, other - one)):
        shown = [float(text.replace("−", "-")) for text in written(browser, number)]
        np.testing.assert_allclose(shown, values[np.isfinite(values)], atol=0.051)
    assert "forward-seed0, step 0" in said(browser)
    assert "reverse-seed0, step 200" in said(browser)


def test_everything_can_be_done_with_the_keyboard(browser, address):
    opened(browser, address, first="forward-seed0", second="reverse-seed0")
    layer = int(view(browser)["layer"])
    after = changed(browser, lambda: press(browser, "#layer [role=slider]", Keys.ARROW_RIGHT))
    assert after["layer"] == str(layer + 1)
    after = changed(browser, lambda: press(browser, "#step [role=slider]", Keys.HOME))
    assert after["step"] == "0"
    after = changed(browser, lambda: press(browser, "#null input:checked", Keys.ARROW_RIGHT))
    assert after["null"] == "N0"
    expected = angles()["excess_deg"].sel(student="forward-seed0", step=0, student_layer=layer + 1, null="N0").values
    shown = [float(text.replace("−", "-")) for text in written(browser, 0)]
    np.testing.assert_allclose(shown, expected[np.isfinite(expected)], atol=0.051)
    after = changed(browser, lambda: press(browser, "#aggregation input:checked", Keys.ARROW_RIGHT))
    assert after["aggregation"] == "median"
    assert "null" not in after  # an excess is known of the mean alone
    after = changed(browser, lambda: press(browser, "#way input:checked", Keys.ARROW_RIGHT))
    assert after["way"] == "pull"
    assert "not measured in pull space" in said(browser)
    changed(browser, lambda: press(browser, "#way input:checked", Keys.ARROW_LEFT))
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script("return document.activeElement.id || document.activeElement.value"))
    assert {"copy", "export-csv", "first-strategy", "second-step", "play", "low", "high", "teacher"} <= reached


def test_training_steps_play_until_paused(browser, address):
    opened(browser, address, first="forward-seed0", second="reverse-seed0", step=0)
    play = browser.find_element(By.ID, "play")
    play.click()
    seen = []
    wait(browser, lambda: seen.append(view(browser)["step"]) or {"0", "40", "200"} <= set(seen))
    assert "Pause" in play.text
    play.click()
    time.sleep(1.5)
    stopped = view(browser)["step"]
    time.sleep(2.5)
    assert view(browser)["step"] == stopped
    assert "Play" in play.text


def test_a_click_on_a_cell_shows_its_pair(browser, address):
    opened(browser, address, first="forward-seed0", second="reverse-seed0")
    plots = browser.find_elements(By.CSS_SELECTOR, "#maps .draglayer .nsewdrag")
    cell = plots[0].size["width"] / 7
    x, y = round(2 * cell), round(-1 * cell)  # from the middle, the cell of layers 3 and 3: layers 5 and 4
    after = changed(
        browser, lambda: ActionChains(browser).move_to_element_with_offset(plots[0], x, y).click().perform()
    )
    assert (after["low"], after["high"]) == ("4", "5")
    curves = "return document.querySelector('#spread .js-plotly-plot')._fullData.map(trace => Array.from(trace.y))"
    counts = angles()["histogram"].sel(student="forward-seed0", step=200, student_layer=1, layer_a=4, layer_b=5).values
    drawn = browser.execute_script(curves)
    np.testing.assert_allclose(drawn[0][:-1], 100 * counts / counts.sum(), atol=1e-3)
    assert "only its angles are here" in browser.find_element(By.ID, "tokens").text
    after = changed(browser, lambda: choose(browser, "high", "6"))
    assert (after["low"], after["high"]) == ("4", "6")


def test_scores_are_sorted_and_have_intervals(browser, address):
    opened(browser, address, first="forward-seed1", second="none-seed1")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#scores tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    assert [row[1] for row in rows][:2] != []
    scores = [float(row[2]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    marked = {row[1]: row[0] for row in rows}
    assert marked["forward"] == "①"
    assert marked["none"] == "②"


def test_students_are_measured_on_demand_and_their_tokens_shown(browser, address):
    opened(browser, address, first="early", second="late", step=10)
    button = browser.find_element(By.ID, "measure")
    wait(browser, button.is_displayed)
    assert "early and late" in button.text
    button.click()
    wait(browser, lambda: written(browser, 0) and written(browser, 1), 60)
    settled(browser)
    assert not button.is_displayed()
    lists = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#tokens ol"))
    assert len(lists) == 4  # smallest and largest of both
    marked = browser.find_elements(By.CSS_SELECTOR, "#tokens .extreme")
    assert len(marked) >= 4
    assert all("rgb(" in e.get_attribute("style") and e.get_attribute("title").endswith("°") for e in marked)
    low, high = (
        [float(b.text.rstrip("°")) for b in some.find_elements(By.TAG_NAME, "b") if b.text.endswith("°")]
        for some in lists[:2]
    )
    assert low == sorted(low)
    assert high == sorted(high, reverse=True)
    assert low[0] <= high[-1]


def test_a_step_without_a_checkpoint_says_so(browser, address):
    opened(browser, address, first="early", second="late", step=0)
    assert "no checkpoint at step 0; 10, 30 are" in " ".join(said(browser).split())
    opened(browser, address, first="early", second="late", step=30)
    assert "no checkpoint at step 30" in said(browser)


@pytest.mark.parametrize("kind", ["csv", "html", "svg", "png", "pdf"])
def test_the_view_is_exported(browser, address, downloads, kind):
    opened(browser, address, first="forward-seed0", second="reverse-seed0", step=40, layer=2)
    file = downloads / f"layerangles-compare.{kind}"
    browser.find_element(By.ID, f"export-{kind}").click()
    wait(browser, file.exists)
    wait(browser, lambda: browser.find_element(By.ID, f"export-{kind}").is_enabled())
    content = file.read_bytes()
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg", "html": b"<"}
    if kind in starts:
        assert content.lstrip().startswith(starts[kind])
    if kind in ("html", "svg"):
        assert "reverse-seed0, step 40" in content.decode()
    if kind == "pdf":  # both columns of a paper
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+)", content)
        assert box is not None
        assert float(box[1]) == pytest.approx(453.54, abs=0.5)
    if kind == "csv":
        table = pd.read_csv(file).set_index(["layer_a", "layer_b"])
        of = angles().sel(student="reverse-seed0", step=40, student_layer=2)
        assert len(table) == 21
        for a, b in table.index:
            assert table.loc[(a, b), "second"] == pytest.approx(of["angle_deg"].sel(layer_a=a, layer_b=b).item())
            assert table.loc[(a, b), "second_low"] == pytest.approx(of["ci_low"].sel(layer_a=a, layer_b=b).item())


def test_a_link_restores_the_view(browser, address):
    asked = {"first": "forward-seed0", "second": "random-seed0", "second_step": 40, "layer": 3, "null": "N1"}
    asked |= {"low": 2, "high": 4, "step": 0, "way": "teacher", "aggregation": "mean", "tower": "encoder"}
    opened(browser, address, **asked)
    assert view(browser) == {key: str(value) for key, value in asked.items()}
    of = angles()["excess_deg"].sel(student_layer=3, null="N1")
    one = of.sel(student="forward-seed0", step=0).values
    shown = [float(text.replace("−", "-")) for text in written(browser, 0)]
    np.testing.assert_allclose(shown, one[np.isfinite(one)], atol=0.051)
    assert browser.find_element(By.ID, "second-step").text == "40"
    assert browser.find_element(By.CSS_SELECTOR, "#layer [role=slider]").get_attribute("aria-valuenow") == "3"
    browser.refresh()
    settled(browser)
    assert view(browser) == {key: str(value) for key, value in asked.items()}


@pytest.mark.parametrize("name", ["no-such-student", "../../../../etc/passwd", "<img src=x onerror=alert(1)>"])
def test_an_unknown_student_is_reported_and_harms_nothing(browser, address, name):
    opened(browser, address, first=name, second="forward-seed0")
    assert "there is no student" in said(browser)
    assert written(browser, 0) == []
    assert written(browser, 1) != []
    assert not browser.find_elements(By.CSS_SELECTOR, "#maps img")
    choose(browser, "first-strategy", "reverse")  # and on one goes
    assert written(browser, 0) != []


def test_the_page_follows_a_study_that_is_being_written(browser, address, growing):
    opened(browser, address, first="forward-seed1", second="none-seed1")
    rows = "return document.querySelectorAll('#scores tbody tr').length"
    assert browser.execute_script(rows) == 2
    (growing / "angles" / "final-seed2.nc").write_bytes(b"half of a file")
    time.sleep(2.5)  # the page has looked
    shutil.copy(RESULTS / "angles" / "final-seed2.nc", growing / "angles" / "beside")
    (growing / "angles" / "beside").replace(growing / "angles" / "final-seed2.nc")
    for name in ("metrics.jsonl", "examples.jsonl"):
        shutil.copy(RESULTS / name, growing / name)
    wait(browser, lambda: browser.execute_script(rows) == 18)
    assert view(browser)["first"] == "forward-seed1"
    choose(browser, "first-seed", "2")
    assert view(browser)["first"] == "forward-seed2"
    values = angles("final-seed2.nc")["angle_deg"].sel(student="forward-seed2", student_layer=1).values
    shown = [float(text) for text in written(browser, 0)]
    np.testing.assert_allclose(shown, values[np.isfinite(values)], atol=0.051)


def test_a_narrow_window_needs_no_scrolling_sideways(browser, address):
    opened(browser, address, width=390, first="forward-seed0", second="reverse-seed0")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    wait(browser, lambda: browser.execute_script(wide) == 0)
    tops = "return [...document.querySelectorAll('#maps .nsewdrag')].map(map => map.getBoundingClientRect().top)"
    first, second, third = sorted(browser.execute_script(tops))
    assert first == second < third  # the difference is below
    plot = "return document.querySelector('#maps .main-svg').getBoundingClientRect().width"
    assert browser.execute_script(plot) <= 390


def test_the_page_is_dark_where_the_system_is(browser, address):
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    try:
        opened(browser, address)
        ground = "return getComputedStyle(document.body).backgroundColor"
        assert browser.execute_script(ground) == "rgb(13, 17, 23)"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
