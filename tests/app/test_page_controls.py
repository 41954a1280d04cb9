"""The page's controls: each changes the maps, the link and what can be chosen next."""

import json

import numpy as np
import pytest
from toys.app_browser import Browser, expected, numbers

from layerangles import AngleResult
from layerangles.app.catalogue import Catalogue
from layerangles.app.views import ViewRequest

# What an address without a query shows.
START = ViewRequest(
    first="forward-seed0",
    second="none-seed0",
    layer=1,
    tower="encoder",
    way="teacher",
    aggregation="mean",
    low=1,
    high=4,
)


def same(maps: list[np.ndarray], first: np.ndarray, second: np.ndarray) -> None:
    for got, wanted in zip(maps, (first, second, second - first), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    assert np.isfinite(first).any()


def test_the_first_page_compares_two_strategies_with_one_seed(browser: Browser, nulls: AngleResult) -> None:
    browser.open()
    assert browser.view == START
    assert browser.choices("first-strategy") == ["forward", "none", "lone", "late", "early", "learned", "wide-learned"]
    assert browser.choices("first-seed") == [0, 1]
    assert browser.choices("way") == ["teacher", "pull", "gradient"]
    assert browser.choices("aggregation") == ["mean", "median", "cosine", "acute"]
    assert browser.choices("low") == browser.choices("high") == [0, 1, 2, 3, 4]
    assert (browser.value("first-strategy"), browser.value("second-strategy")) == ("forward", "none")
    same(browser.maps(), expected(nulls, "identity"), expected(nulls, "deeper"))
    # The students without steps have no slider for them, and those of one tower no choice of it.
    hidden = {name: browser.value(name, "hidden") for name in ("course", "depth", "tower-field", "pair")}
    assert hidden == {"course": True, "depth": False, "tower-field": True, "pair": False}


def test_a_strategy_and_a_seed_choose_the_student(browser: Browser, nulls: AngleResult) -> None:
    browser.open().move("first-strategy", "none")
    assert (browser.view.first, browser.view.second) == ("none-seed0", "none-seed0")
    same(browser.maps(), *[expected(nulls, "deeper")] * 2)
    browser.move("second-seed", 1)
    assert (browser.view.first, browser.view.second) == ("none-seed0", "none-seed1")
    same(browser.maps(), expected(nulls, "deeper"), expected(nulls, "identity"))
    browser.move("second-strategy", "lone")  # which has no seed
    assert browser.view.second == "lone"
    assert (browser.choices("second-seed"), browser.value("second-seed")) == ([], None)
    texts = " ".join(a["text"].replace("<br>", " ") for a in browser.value("maps", "figure")["layout"]["annotations"])
    assert "not measured in teacher space" in texts


def test_sliders_choose_layer_and_step(browser: Browser, nulls: AngleResult, catalogue: Catalogue) -> None:
    browser.open().move("layer", 2)
    assert browser.view.layer == 2
    same(browser.maps(), expected(nulls, "identity", layer=2), expected(nulls, "deeper", layer=2))
    browser.move("layer", 9)  # beyond the end: nothing changes
    assert browser.view.layer == 2

    browser.open("?first=late&second=early")
    assert not browser.value("course", "hidden")
    assert browser.value("step", "max") == 3
    assert list(browser.value("step", "marks").values()) == ["0", "10", "20", "30"]
    browser.move("step", 1)
    assert browser.view.step == 10
    stepped = catalogue.read().entries["late"].student.results[0]
    same(browser.maps(), *(expected(stepped, name, step=10) for name in ("late", "early")))
    browser.move("first-step", 30)
    assert (browser.view.step, browser.view.first_step, browser.view.second_step) == (10, 30, None)
    same(browser.maps(), expected(stepped, "late", step=30), expected(stepped, "early", step=10))
    browser.move("first-step", browser.choices("first-step")[0])  # as the slider
    assert browser.view.first_step is None


def test_playing_passes_through_the_steps_and_starts_again(browser: Browser) -> None:
    browser.open("?first=early&second=early&step=0")
    seen = []
    for n in range(4):
        browser.move("tick", n, "n_intervals")
        seen.append(browser.view.step)
    assert seen == [10, 20, 0, 10]


def test_a_null_resets_the_aggregation_and_the_other_way_round(browser: Browser, nulls: AngleResult) -> None:
    browser.open()
    assert browser.choices("null")[1:] == ["N0", "N1"]
    raw = browser.choices("null")[0]
    browser.move("null", "N1")
    same(browser.maps(), *(expected(nulls, name, "excess_deg", null="N1") for name in ("identity", "deeper")))
    browser.move("aggregation", "acute")
    assert (browser.view.aggregation, browser.view.null, browser.value("null")) == ("acute", None, raw)
    same(browser.maps(), *(100 * expected(nulls, name, "acute_fraction") for name in ("identity", "deeper")))
    browser.move("null", "N0")
    assert (browser.view.aggregation, browser.value("aggregation"), browser.view.null) == ("mean", "mean", "N0")
    browser.move("null", raw)
    assert browser.view.null is None
    same(browser.maps(), expected(nulls, "identity"), expected(nulls, "deeper"))


def test_a_click_on_a_cell_chooses_the_pair(browser: Browser, nulls: AngleResult) -> None:
    browser.open().move("maps", {"points": [{"curveNumber": 0, "x": 0, "y": 3}]}, "clickData")
    assert (browser.view.low, browser.view.high) == (0, 3)
    assert (browser.value("low"), browser.value("high")) == (0, 3)
    curves = [trace for trace in browser.value("spread", "figure")["data"] if "hovertemplate" in trace]
    for curve, student in zip(curves, ("identity", "deeper"), strict=True):
        counts = nulls.dataset["histogram"].sel(student=student, tower="encoder", student_layer=1, layer_a=0, layer_b=3)
        np.testing.assert_allclose(numbers(curve["y"])[:-1], 100 * counts / counts.sum())
    browser.move("maps", {"points": [{"curveNumber": 0, "x": 2, "y": 2}]}, "clickData")
    assert (browser.view.low, browser.view.high) == (0, 3)  # a layer makes no angle with itself
    browser.move("high", 2)
    assert (browser.view.low, browser.view.high) == (0, 2)


def test_a_link_opens_what_it_names(browser: Browser, nulls: AngleResult) -> None:
    view = ViewRequest(first="none-seed1", second="forward-seed0", layer=2, way="teacher", null="N0", low=2, high=3)
    browser.open(view.query())
    assert browser.value("first-strategy"), browser.value("first-seed") == ("none", 1)
    same(browser.maps(), *[expected(nulls, "identity", "excess_deg", 2, null="N0")] * 2)
    again = Browser(browser.app).open(browser.value("query", "data"))
    assert again.value("maps", "figure") == browser.value("maps", "figure")


@pytest.mark.parametrize("key", ["../../../etc/passwd", "<img src=x onerror=alert(1)>", "a" * 2000])
def test_a_missing_student_is_named_in_its_place(browser: Browser, key: str) -> None:
    browser.open(ViewRequest(first=key).query())
    first, second, difference = browser.maps()
    assert np.isnan(first).all()
    assert np.isnan(difference).all()
    assert np.isfinite(second).any()
    texts = [a["text"] for a in browser.value("maps", "figure")["layout"]["annotations"]]
    (said,) = (text for text in texts if text.startswith("there is no"))
    assert "<img" not in said
    assert browser.value("first-strategy") is None
    browser.move("first-strategy", "none")  # from there one gets away
    assert browser.view.first == "none-seed0"


@pytest.mark.parametrize(
    "query",
    ["?step=999999999999", "?layer=²&low=-1&high=[1]", "?way=../..&tower=x&null=N9&aggregation=mode", "?%00&&=="],
)
def test_a_malformed_link_opens_the_first_page(browser: Browser, query: str) -> None:
    assert browser.open(query).view == START


def test_a_lone_surrogate_in_a_query_is_no_failure(browser: Browser) -> None:
    browser.open("?first=\ud800&layer=2")
    assert browser.view.layer == 2


def test_answers_are_strict_json(browser: Browser) -> None:
    answer = browser.post(browser.request("maps.figure"))
    json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
