"""The widget in a real browser: choosing, sliding, pointing; what is there without scripts; and how large it gets."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from toys.chromium import complaints, needs_browser, requests, started
from toys.results import make_result, with_steps

from layerangles import AngleResult, InputError
from layerangles.app.widget import widget

MOST_BYTES = 200_000
RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews" / "angles"
HOSTILE = "</script><b>&\"'"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with started() as driver:
        yield driver


@pytest.fixture(scope="module")
def course() -> AngleResult:
    return AngleResult.load(RESULTS / "course-seed0.nc")


def opened(browser: webdriver.Chrome, tmp_path: Path, *snippets: str, width: int = 1300) -> webdriver.Chrome:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><meta charset="utf-8"><body>' + "".join(snippets), encoding="utf-8")
    browser.get(page.as_uri())
    return browser


def controls(browser: webdriver.Chrome, number: int = 0) -> dict[str, Select]:
    root = browser.find_elements(By.CLASS_NAME, "layerangles-compare")[number]
    labels = [label for label in root.find_elements(By.TAG_NAME, "label") if label.find_elements(By.TAG_NAME, "select")]
    return {label.text.split("\n")[0]: Select(label.find_element(By.TAG_NAME, "select")) for label in labels}


def slide(browser: webdriver.Chrome, *keys: str) -> None:
    browser.find_element(By.CSS_SELECTOR, "input[type=range]").send_keys(*keys)


def captions(browser: webdriver.Chrome) -> list[str]:
    return [element.text for element in browser.find_elements(By.TAG_NAME, "figcaption")]


def titles(browser: webdriver.Chrome, number: int) -> list[str]:
    script = "return [...document.querySelectorAll('figure')[arguments[0]].querySelectorAll('title')]"
    return list(browser.execute_script(f"{script}.map(t => t.textContent)", number))


def numbers(texts: list[str]) -> list[float]:
    return [float(re.search(r": ([−+]?[\d.]+)°", text)[1].replace("−", "-")) for text in texts]  # type: ignore[index]


def expected(data, name: str) -> list[float]:
    values = data[name].transpose("layer_a", "layer_b").values
    return [float(value) for value in values[np.triu_indices(len(values), 1)] if np.isfinite(value)]


@needs_browser
def test_what_python_drew_is_what_the_script_draws(browser, tmp_path, course):
    snippet = widget([course], "none-seed0", "forward-seed0@40")
    opened(browser, tmp_path, snippet)
    script = (
        "const t = document.createElement('template'); t.innerHTML = arguments[0];"
        "return [t.content, document].map(root => root.querySelector('.maps').innerHTML)"
    )
    drawn, redrawn = browser.execute_script(script, snippet)
    assert len(drawn) > 10_000
    assert drawn == redrawn
    assert complaints(browser) == []
    assert requests(browser) == []


@needs_browser
def test_choosing_and_sliding_show_the_numbers_of_the_result(browser, tmp_path, course):
    opened(browser, tmp_path, widget([course], "none-seed0", "forward-seed0"))
    assert captions(browser)[1] == "forward-seed0, step 200\nstudent layer 1, matched to 2 (◆)"
    controls(browser)["second"].select_by_visible_text("reverse-seed0, step 40")
    slide(browser, Keys.ARROW_RIGHT)
    assert [text.split("\n")[0] for text in captions(browser)] == [
        "none-seed0, step 200",
        "reverse-seed0, step 40",
        "difference",
    ]
    first, second = (
        course.dataset.sel(student=name, step=step, tower="encoder", student_layer=2)
        for name, step in (("none-seed0", 200), ("reverse-seed0", 40))
    )
    assert numbers(titles(browser, 0)) == pytest.approx(expected(first, "angle_deg"), abs=0.056)
    assert numbers(titles(browser, 1)) == pytest.approx(expected(second, "angle_deg"), abs=0.056)
    assert numbers(titles(browser, 2)) == pytest.approx(
        expected(second[["angle_deg"]] - first[["angle_deg"]], "angle_deg"), abs=0.061
    )
    low, high = (float(second[name].sel(layer_a=0, layer_b=1)) for name in ("ci_low", "ci_high"))
    ends = re.search(r"\[([\d.]+), ([\d.]+)\]", titles(browser, 1)[0])
    assert ends is not None
    assert [float(ends[1]), float(ends[2])] == pytest.approx([low, high], abs=0.065)
    assert complaints(browser) == []


@needs_browser
def test_the_excess_has_one_scale_for_the_two_and_for_all_layers(browser, tmp_path, course):
    opened(browser, tmp_path, widget([course], "none-seed0", "forward-seed0"))
    controls(browser)["shown"].select_by_visible_text("excess over N1")
    both = course.dataset.sel(student=["none-seed0", "forward-seed0"], step=200, null="N1")
    first = both.sel(student="none-seed0", tower="encoder", student_layer=1)
    assert numbers(titles(browser, 0)) == pytest.approx(expected(first, "excess_deg"), abs=0.056)
    legend = "return [...document.querySelectorAll('figure:first-child > div text')].map(t => t.textContent)"
    before = browser.execute_script(legend)
    assert float(before[2].strip("+°")) == pytest.approx(float(np.abs(both["excess_deg"]).max()), abs=0.06)
    slide(browser, Keys.ARROW_RIGHT)
    assert browser.execute_script(legend) == before


@needs_browser
def test_two_on_one_page_do_not_disturb_each_other(browser, tmp_path, course):
    opened(browser, tmp_path, widget([course], "none-seed0"), widget([course], "last-seed0"))
    before = browser.execute_script("return document.querySelectorAll('.maps')[0].innerHTML")
    controls(browser, 1)["first"].select_by_visible_text("none-seed0, step 0")
    assert browser.execute_script("return document.querySelectorAll('.maps')[0].innerHTML") == before
    assert captions(browser)[3].startswith("none-seed0, step 0")
    assert len(browser.find_elements(By.CSS_SELECTOR, "input[type=range]")) == 2
    assert complaints(browser) == []


@needs_browser
def test_put_into_the_page_later_as_notebooks_do(browser, tmp_path, course):
    opened(browser, tmp_path, "<main></main>")
    browser.execute_script(
        "const main = document.querySelector('main'); main.innerHTML = arguments[0];"
        "for (const old of main.querySelectorAll('script')) {"
        " const fresh = document.createElement('script'); fresh.textContent = old.textContent;"
        " if (old.type) fresh.type = old.type; old.replaceWith(fresh); }",
        widget([course]),
    )
    assert len(controls(browser)) == 3
    assert complaints(browser) == []


@needs_browser
def test_the_keyboard_moves_over_the_cells(browser, tmp_path, course):
    opened(browser, tmp_path, widget([course], "none-seed0", "forward-seed0"))
    maps = browser.find_element(By.CLASS_NAME, "maps")
    maps.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)  # layer_b 3, layer_a 1
    said = browser.find_element(By.CLASS_NAME, "readout").text.split("\n")
    assert said[0] == "Teacher layers 1 and 3"
    data = course.dataset.sel(student="forward-seed0", step=200, tower="encoder", student_layer=1, layer_a=1, layer_b=3)
    assert said[2].startswith("forward-seed0, step 200: ")
    assert numbers([said[2]]) == pytest.approx([float(data["angle_deg"])], abs=0.056)
    assert len(browser.find_elements(By.CLASS_NAME, "cursor")) == 3


@needs_browser
@pytest.mark.parametrize("width", [1300, 330])  # at 330 the maps are scaled down
def test_pointing_at_a_cell_says_its_numbers(browser, tmp_path, course, width):
    opened(browser, tmp_path, widget([course], "none-seed0", "forward-seed0"), width=width)
    svg = browser.find_elements(By.CSS_SELECTOR, "figure > svg")[1]
    cell = svg.size["width"] * 38 / 306
    x, y = 34 / 38 * cell + 5.5 * cell - svg.size["width"] / 2, 6.5 * cell - svg.size["height"] / 2
    ActionChains(browser).move_to_element_with_offset(svg, round(x), round(y)).perform()  # layer_b 5, layer_a 0
    said = browser.find_element(By.CLASS_NAME, "readout").text.split("\n")
    data = course.dataset.sel(student="forward-seed0", step=200, tower="encoder", student_layer=1, layer_a=0, layer_b=5)
    assert said[0] == "Teacher layers 0 and 5"
    assert numbers([said[2]]) == pytest.approx([float(data["angle_deg"])], abs=0.056)
    assert " [" in said[2]


@needs_browser
@pytest.mark.parametrize("width", [1300, 400])
def test_never_wider_than_its_window(browser, tmp_path, course, width):
    opened(browser, tmp_path, widget([course]), width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@needs_browser
def test_towers_blanks_and_unlike_teachers(browser, tmp_path):
    two = make_result(("a",), towers=("encoder", "decoder"), blank=((0, 1, 2),))
    other = make_result((HOSTILE,), n_teacher=6, n_student=2, matched=())
    opened(browser, tmp_path, widget([two, other]))
    assert "differ in depth" in " ".join(browser.find_elements(By.TAG_NAME, "figure")[2].text.split("\n"))
    assert captions(browser)[1].startswith(HOSTILE)
    controls(browser)["tower"].select_by_visible_text("decoder")
    slide(browser, Keys.ARROW_RIGHT)
    shown = [figure.text for figure in browser.find_elements(By.TAG_NAME, "figure")]
    assert "no map" in shown[0]
    assert "no such layer" in shown[1]
    assert complaints(browser) == []


@needs_browser
def test_what_was_measured_otherwise_is_said(browser, tmp_path, course):
    changed = AngleResult(course.dataset.assign_attrs(data_sha256="another"))
    opened(browser, tmp_path, widget([course, changed], "none-seed0", "none-seed0 (2)"))
    odd = "were not measured on the same teacher and texts in the same way"
    assert odd in browser.find_element(By.CLASS_NAME, "readout").text
    controls(browser)["second"].select_by_visible_text("none-seed0, step 0")
    assert odd not in browser.find_element(By.CLASS_NAME, "readout").text


def test_without_scripts_the_first_state_is_there(course):
    snippet = re.sub(r"<script.*?</script>", "", widget([course], "none-seed0", "forward-seed0"), flags=re.S)
    assert snippet.count("<svg") == 5
    assert "none-seed0, step 200" in snippet
    assert "needs scripts, which do not run here" in snippet
    assert "http" not in snippet


def test_eighteen_students_at_three_steps_fit_with_all_nulls(course):
    snippet = widget([course])
    assert len(snippet.encode()) < MOST_BYTES
    assert "Left out" not in snippet


def payload(snippet: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', snippet, re.S)[1])  # type: ignore[index]


def large(n_students: int, n_steps: int, n_teacher: int, n_student: int) -> AngleResult:
    names = tuple(f"student-{i}" for i in range(n_students))
    return with_steps(make_result(names, n_teacher, n_student, matched=()), [10 * i for i in range(n_steps)])


@pytest.mark.parametrize("shape", [(40, 5, 13, 7), (10, 4, 25, 13), (3, 2, 33, 29), (2, 1, 81, 41), (400, 2, 5, 3)])
def test_too_much_is_thinned_out_and_said(shape):
    snippet = widget([large(*shape)], "student-1", "student-0")
    assert len(snippet.encode()) < MOST_BYTES
    assert "Left out to stay small: " in snippet
    data = payload(snippet)
    chosen = [data["states"][i] for i in data["chosen"]]
    assert [state["name"] for state in chosen] == ["student-1", "student-0"]
    assert [state["step"] for state in chosen] == [10 * (shape[1] - 1)] * 2


def test_steps_go_first_and_students_then():
    kept = payload(widget([large(40, 5, 7, 4)], "student-3@20"))["states"]
    steps = {}
    for state in kept:
        steps.setdefault(state["name"], []).append(state["step"])
    assert steps.pop("student-3") == [0, 20, 40]
    assert list(steps.values()) == [[0, 40]] * 39


def test_defaults_compare_two_students_or_the_ends_of_one(course):
    def chosen(snippet: str) -> list[tuple[str, int]]:
        data = payload(snippet)
        return [(data["states"][i]["name"], data["states"][i]["step"]) for i in data["chosen"]]

    one = AngleResult(course.dataset.sel(student=["last-seed0"]))
    assert chosen(widget([one])) == [("last-seed0", 0), ("last-seed0", 200)]
    assert chosen(widget([course], "none-seed0@0", "none-seed0")) == [("none-seed0", 0), ("none-seed0", 200)]
    assert chosen(widget([course]))[0] == ("all_to_one-scratch-seed0", 200)


@pytest.mark.parametrize("name", ["no-such", "none-seed0@7"])
def test_no_such_checkpoint(course, name):
    with pytest.raises(InputError, match=r"there is no checkpoint .*Give a student's name, or name@step; the students"):
        widget([course], name)


def test_nothing_to_compare():
    with pytest.raises(InputError, match="nothing to compare: got no results"):
        widget([])
