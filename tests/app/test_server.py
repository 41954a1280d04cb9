"""The app's server, asked as a browser asks it: who is answered, and what the page's elements are told."""

import base64
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dash import Dash
from toys.app_sources import Stub, scored
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import Catalogue
from layerangles.app.measuring import MeasuringPlan
from layerangles.app.server import create_app, is_loopback
from layerangles.app.sources import InMemory, Student, StudentDirectories
from layerangles.app.views import ViewRequest, resolve
from layerangles.files import sha256_of_file
from layerangles.measurement.token_angles import TokenReader
from layerangles.models import weights
from layerangles.models.checkpoints import open_student

PLAN = MeasuringPlan(n_texts=8, max_length=32, device="cpu")
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


@dataclass
class Browser:
    """What a browser knows of the page, and what it sends when an element is moved."""

    app: Dash
    known: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = self.app.server.test_client()
        self.callbacks = [c for c in self.get("/_dash-dependencies").json if not c["clientside_function"]]
        self.known = {("look", "n_intervals"): 0, ("tick", "n_intervals"): 0}
        self._learn(self.get("/_dash-layout").json)
        self.known["width", "data"] = 1160

    def _learn(self, element: Any) -> None:
        if isinstance(element, list):
            for one in element:
                self._learn(one)
        elif isinstance(element, dict) and "props" in element:
            for name, value in element["props"].items():
                self.known[element["props"].get("id"), name] = value
            self._learn(element["props"].get("children"))

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={"Host": "localhost:8050"} | headers, buffered=True)

    def post(self, body: Any, **headers: str) -> Any:
        return self.client.post("/_dash-update-component", json=body, headers={"Host": "localhost:8050"} | headers)

    def request(self, output: str, moved: str = "") -> dict[str, Any]:
        """The request for what a callback puts into ``output`` after ``moved`` has changed."""
        (callback,) = (c for c in self.callbacks if output in re.split(r"\.\.\.?", c["output"]))

        def listed(which: str) -> list[dict[str, Any]]:
            return [one | {"value": self.known.get((one["id"], one["property"]))} for one in callback[which]]

        several = callback["output"].startswith("..")
        names = callback["output"].strip(".").split("...") if several else [callback["output"]]
        outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
        return {
            "output": callback["output"],
            "outputs": outputs if several else outputs[0],
            "inputs": listed("inputs"),
            "state": listed("state"),
            "changedPropIds": [moved] if moved else [],
        }

    def fire(self, output: str, moved: str = "") -> bool:
        """Ask, and take in what is answered; False where nothing is to change."""
        answer = self.post(self.request(output, moved))
        assert answer.status_code in (200, 204), answer.text
        for element, values in (answer.json["response"] if answer.status_code == 200 else {}).items():
            for name, value in values.items():
                self.known[element, name] = value
        return bool(answer.status_code == 200)

    def open(self, search: str = "") -> "Browser":
        self.known |= {("location", "search"): search, ("query", "data"): None}
        assert self.fire("maps.figure")
        return self

    def move(self, element: str, value: Any, name: str = "value") -> "Browser":
        self.known[element, name] = value
        assert self.fire("maps.figure", f"{element}.{name}")
        return self

    def value(self, element: str, name: str = "value") -> Any:
        return self.known[element, name]

    @property
    def view(self) -> ViewRequest:
        return ViewRequest.from_query(self.value("query", "data"))

    def choices(self, element: str) -> list[Any]:
        return [one["value"] for one in self.value(element, "options")]

    def maps(self) -> list[np.ndarray]:
        """The three heat maps' numbers."""
        traces = self.value("maps", "figure")["data"]
        return [numbers(trace["z"]) for trace in traces if trace["type"] == "heatmap"]

    def said(self, element: str, name: str = "children") -> str:
        """All text in an element."""
        return " ".join(texts_in(self.value(element, name)))


def numbers(values: Any) -> np.ndarray:
    if isinstance(values, dict):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        return flat.reshape([int(n) for n in str(values.get("shape", flat.size)).split(",")])
    return np.array([[np.nan if v is None else v for v in row] for row in values], dtype=np.float64)


def texts_in(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    if isinstance(element, list):
        return [text for one in element for text in texts_in(one)]
    return texts_in(element["props"].get("children")) if isinstance(element, dict) else []


@pytest.fixture(scope="module")
def nulls(study: ToyStudy) -> AngleResult:
    return measure_angles([study.identity, study.deeper], study.texts[:8], nulls=("N0", "N1"), device="cpu")


@pytest.fixture(scope="module")
def catalogue(
    tmp_path_factory: pytest.TempPathFactory,
    study: ToyStudy,
    study_with_steps: Sequence[Path],
    nulls: AngleResult,
) -> Catalogue:
    """Two strategies and a third with one seed; two students with steps; two with weights, of which one is measured."""
    names = ["forward-seed0", "none-seed0", "none-seed1", "forward-seed1"]
    result = AngleResult(nulls.dataset.isel(student=[0, 1, 0, 1]).assign_coords(student=names))
    students = [*(Student(name, None, lambda: (result,)) for name in names), Student("lone", None)]
    scores = scored({"forward-seed0": 0.5, "forward-seed1": 0.7, "none-seed0": 0.9})
    stepped = measure_angles(study_with_steps, study.texts[:6], steps=True, device="cpu")
    root = tmp_path_factory.mktemp("directories")
    directories = [Path(shutil.copytree(path, root / path.name)) for path in (study.learned, study.wide_learned)]
    measure_angles(directories[0], study.texts[:8], device="cpu").save(directories[0] / "angles.nc")
    return Catalogue(
        [
            Stub("study", students, scores),
            InMemory(stepped, "course"),
            StudentDirectories(directories, lambda: study.texts),
        ]
    )


@pytest.fixture(scope="module")
def app(catalogue: Catalogue) -> Dash:
    return create_app(catalogue, PLAN)


@pytest.fixture
def browser(app: Dash) -> Browser:
    return Browser(app)


# Who is answered


@pytest.mark.parametrize("host", ["localhost", "localhost:8050", "127.0.0.1:1", "127.0.0.1", "[::1]:8050", "[::1]"])
def test_this_machine_by_its_names_is_answered_to(browser: Browser, host: str) -> None:
    assert browser.get("/", Host=host).status_code == 200
    assert browser.get("/", Host=host, Origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8050", "localhost.evil.example", "127.0.0.1.nip.io:8050", "127.0.0.2"),
        *("0.0.0.1:8050", "192.168.0.7:8050", "[::2]:8050", "::1", "localhost:8050.evil.example"),
    ],
)
def test_a_foreign_host_is_refused_whatever_it_asks_for(browser: Browser, host: str) -> None:
    for path in ("/", "/_dash-layout", "/_dash-dependencies", "/assets/compare.css"):
        answer = browser.get(path, Host=host, **{"X-Forwarded-Host": "localhost"})
        assert answer.status_code == 403
        assert "is not one that this app answers to" in answer.text
    answer = browser.post(browser.request("maps.figure"), Host=host)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost", "http://localhost:8051", "http://127.0.0.1:8050", "null", ""]
)
def test_a_foreign_page_is_refused(browser: Browser, origin: str) -> None:
    body = browser.request("maps.figure")
    answer = browser.post(body, Origin=origin)
    assert answer.status_code == 403
    assert "The request comes from another page" in answer.text
    assert browser.post(body, Origin="http://localhost:8050").status_code == 200


def test_a_name_that_it_is_bound_to_is_answered_to(catalogue: Catalogue) -> None:
    client = create_app(catalogue, PLAN, hosts=("localhost", "gpu-box")).server.test_client()
    status = {
        host: client.get("/", headers={"Host": host}).status_code
        for host in ("gpu-box", "gpu-box:8050", "localhost", "127.0.0.1", "other-box")
    }
    assert status == {"gpu-box": 200, "gpu-box:8050": 200, "localhost": 200, "127.0.0.1": 403, "other-box": 403}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.1", "::", "192.168.0.7", "gpu-box", "localhost.evil.example", "")),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_every_answer_forbids_what_comes_from_elsewhere(browser: Browser) -> None:
    for answer in (
        browser.get("/"),
        browser.get("/_dash-layout"),
        browser.get("/assets/compare.css"),
        browser.get("/", Host="evil.example"),
        browser.post(browser.request("maps.figure")),
    ):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["connect-src"] == "'self'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert not [source for source in policy["script-src"].split() if "*" in source or "http" in source]
        assert set(policy["frame-ancestors"].split()) == {"'self'", "http://localhost:*", "http://127.0.0.1:*"}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


# What is served


def test_the_page_is_served_and_loads_nothing_from_elsewhere(browser: Browser) -> None:
    page = browser.get("/").text
    assert "<title>layerangles compare</title>" in page
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert len(loaded) > 3
    assert [address for address in loaded if not address.startswith("/")] == []
    (style,) = (address for address in loaded if "compare.css" in address)
    assert "text/css" in browser.get(style).headers["Content-Type"]
    assert "study, course, 2 students" in " ".join(texts_in(browser.get("/_dash-layout").json))


def test_every_element_that_is_told_something_is_there(browser: Browser) -> None:
    there = {element for element, _ in browser.known}
    for callback in browser.get("/_dash-dependencies").json:
        outputs = callback["output"].strip(".").split("...")
        named = [*(name.rsplit(".", 1)[0] for name in outputs), *(i["id"] for i in callback["inputs"])]
        assert set(named) | {state["id"] for state in callback["state"]} <= there


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/%2e%2e/result.py",
        "/assets//etc/passwd",
        "/etc/passwd",
        "/_dash-component-suites/dash/../../etc/passwd",
    ],
)
def test_no_file_is_served_but_the_apps_own(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert "root:" not in answer.text
    assert "import" not in answer.text.splitlines()[0]
    # Whatever is no file of the app is the page itself, which reads nothing but the query.
    assert answer.status_code in (404, 500) or "<title>layerangles compare</title>" in answer.text


# What the page shows


def expected(result: AngleResult, student: str, name: str = "angle_deg", layer: int = 1, **more: Any) -> np.ndarray:
    data = result.dataset[name].sel(student=student, tower="encoder", student_layer=layer, **more)
    return data.transpose("layer_a", "layer_b").values  # type: ignore[no-any-return]


def same(maps: list[np.ndarray], first: np.ndarray, second: np.ndarray) -> None:
    for got, wanted in zip(maps, (first, second, second - first), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    assert np.isfinite(first).any()


def test_to_begin_with(browser: Browser, nulls: AngleResult) -> None:
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


def test_choosing_a_strategy_and_a_seed(browser: Browser, nulls: AngleResult) -> None:
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


def test_the_sliders(browser: Browser, nulls: AngleResult, catalogue: Catalogue) -> None:
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


def test_playing_goes_through_the_steps_and_begins_again(browser: Browser) -> None:
    browser.open("?first=early&second=early&step=0")
    seen = []
    for n in range(4):
        browser.move("tick", n, "n_intervals")
        seen.append(browser.view.step)
    assert seen == [10, 20, 0, 10]


def test_nulls_and_aggregations_give_way_to_each_other(browser: Browser, nulls: AngleResult) -> None:
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
def test_a_student_that_is_not_here_is_said_where_it_would_be(browser: Browser, key: str) -> None:
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
def test_a_link_that_makes_no_sense_opens_what_is_there(browser: Browser, query: str) -> None:
    assert browser.open(query).view == START


def test_a_query_of_half_a_character_is_no_failure(browser: Browser) -> None:
    browser.open("?first=\ud800&layer=2")
    assert browser.view.layer == 2


def test_scores_stand_beside_with_the_chosen_ones_marked(browser: Browser) -> None:
    browser.open()
    said = browser.said("scores")
    assert "accuracy" in said
    assert said.index("none") < said.index("forward")  # the better first
    assert "0.9000" in said or "0.9" in said
    browser.open("?first=lone&second=lone")
    assert "①" not in browser.said("scores")


# Saving


@pytest.mark.parametrize(
    "query", ["", "?first=forward-seed0&second=none-seed0&layer=2&null=N1", "?first=late&step=10&aggregation=median"]
)
def test_the_numbers_are_saved_as_they_are_shown(browser: Browser, catalogue: Catalogue, query: str) -> None:
    browser.open(query)
    browser.known["export-csv", "n_clicks"] = 1
    assert browser.fire("download.data", "export-csv.n_clicks")
    file = browser.value("download", "data")
    assert file["filename"] == "layerangles-compare.csv"
    content = base64.b64decode(file["content"]) if file["base64"] else file["content"].encode()
    table = resolve(browser.view, catalogue.read()).table()
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(content)), table.reset_index(drop=True), check_exact=False)
    assert len(table) == 10


def test_a_page_is_saved_as_html(browser: Browser) -> None:
    browser.open()
    assert browser.fire("download.data", "export-html.n_clicks")
    file = browser.value("download", "data")
    content = base64.b64decode(file["content"]).decode()
    assert file["filename"] == "layerangles-compare.html"
    assert "forward-seed0, final state" in content.replace("forward-<br>seed0", "forward-seed0")


def test_formats_that_there_are_not(browser: Browser) -> None:
    browser.open()
    body = browser.request("download.data", "export-exe.n_clicks")
    assert browser.post(body).status_code == 204


# Measuring and tokens


def offered(browser: Browser) -> bool:
    browser.fire("measure.hidden", "look.n_intervals")
    return not browser.value("measure", "hidden")


def test_measuring_on_demand_shows_the_map_when_it_is_done(catalogue: Catalogue, app: Dash, study: ToyStudy) -> None:
    browser = Browser(app).open("?first=learned&second=wide-learned")
    assert np.isnan(browser.maps()[1]).all()
    assert offered(browser)
    assert browser.said("measure") == "Measure wide-learned in teacher space"
    version = browser.value("version", "data")
    browser.known["measure", "n_clicks"] = 1
    assert browser.fire("wanted.data", "measure.n_clicks")
    end = time.monotonic() + 30
    while browser.value("version", "data") == version:
        assert time.monotonic() < end
        browser.fire("measure.hidden", "look.n_intervals")
        time.sleep(0.02)
    assert browser.fire("maps.figure", "version.data")
    result = catalogue.read().entries["wide-learned"].student.results[0]
    np.testing.assert_allclose(browser.maps()[1], expected(result, "wide-learned"), atol=1e-9)
    until_quiet = time.monotonic() + 30
    while browser.said("progress"):
        assert time.monotonic() < until_quiet
        browser.fire("measure.hidden", "look.n_intervals")
    assert not offered(browser)


def test_nothing_is_offered_where_there_are_no_weights(browser: Browser) -> None:
    browser.open("?first=lone&second=stranger")
    assert not offered(browser)
    browser.known["measure", "n_clicks"] = 0
    assert not browser.fire("wanted.data", "measure.n_clicks")  # as when the page opens


def test_extreme_tokens_stand_in_their_texts(browser: Browser, study: ToyStudy, catalogue: Catalogue) -> None:
    browser.open("?first=learned&second=forward-seed0&low=1&high=4")
    assert browser.fire("tokens.children", "query.data")
    first, second = browser.value("tokens", "children")
    said = " ".join(texts_in(first))
    assert "learned, final state" in said
    assert "tokens need the student's weights" in " ".join(texts_in(second))
    items = [one for one in elements(first) if one.get("type") == "Li"]
    assert len(items) == 10
    texts = ["".join(texts_in(item)).split("° ", 1)[1] for item in items]
    assert {" ".join(text.split()[1:-1]) for text in texts} <= set(study.texts)
    shown = [float("".join(texts_in(item)).split("°", 1)[0]) for item in items]
    smallest, largest = shown[:5], shown[5:]
    assert smallest == sorted(smallest)
    assert largest == sorted(largest, reverse=True)
    assert max(smallest) < min(largest)
    result = catalogue.read().entries["learned"].student.results[0]
    mean = expected(result, "learned")[1, 4]
    assert smallest[0] < mean < largest[0]


def test_tokens_are_those_of_the_step(study_with_steps: Sequence[Path], study: ToyStudy) -> None:
    late = study_with_steps[0]
    measured = measure_angles(late, study.texts[:8], steps=True, device="cpu")
    source = Stub("s", [Student("late", late, lambda: (measured,))], given=study.texts[:8])
    browser = Browser(create_app(Catalogue([source]), PLAN))
    reader = TokenReader(open_student(late).open_teacher(), study.texts[:8], max_length=32, device="cpu")
    for step, path in ((10, late / "checkpoints" / "step-10"), (30, late)):
        browser.open(f"?step={step}&layer=2&low=1&high=4")
        assert browser.fire("tokens.children", "query.data")
        item = next(one for one in elements(browser.value("tokens", "children")) if one.get("type") == "Li")
        smallest = float(reader.angles(open_student(path), "encoder", 2, (1, 4)).angle_deg.min())
        assert "".join(texts_in(item)).startswith(f"{smallest:.1f}° ")


def test_weights_are_hashed_once_and_again_when_the_student_is_another(
    study_with_steps: Sequence[Path], study: ToyStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = shutil.copytree(study_with_steps[0].parent, tmp_path / "students")
    late = students / "late"
    for file in late.rglob("matching.json"):
        file.write_text(file.read_text().replace(json.loads(file.read_text())["teacher"]["path"], str(study.teacher)))
    measured = measure_angles(late, study.texts[:8], steps=True, device="cpu")
    source = Stub("s", [Student("late", late, lambda: (measured,))], given=study.texts[:8])
    browser = Browser(create_app(Catalogue([source]), PLAN))
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_of_file(path)

    monkeypatch.setattr(weights, "sha256_of_file", counted)
    for high, n_expected in ((2, True), (3, False), (4, False)):
        hashed.clear()
        browser.open(f"?low=1&high={high}")
        assert browser.fire("tokens.children", "query.data")
        assert bool(hashed) is n_expected
    shutil.copy(late / "checkpoints" / "step-10" / "model.safetensors", late)
    matching = late / "matching.json"
    os.utime(matching, ns=(0, matching.stat().st_mtime_ns + 10**9))
    assert browser.fire("tokens.children", "query.data")
    assert late / "model.safetensors" in hashed


def test_tokens_of_what_is_not_there(browser: Browser) -> None:
    browser.open("?first=stranger&second=learned&way=gradient")
    assert browser.fire("tokens.children", "query.data")
    said = browser.said("tokens")
    assert "there is no student 'stranger' here" in said
    assert "not measured in gradient space" in said


def elements(element: Any) -> Iterator[dict[str, Any]]:
    if isinstance(element, list):
        for one in element:
            yield from elements(one)
    elif isinstance(element, dict) and "props" in element:
        yield element
        yield from elements(element["props"].get("children"))


def test_what_is_sent_is_json_that_a_browser_reads(browser: Browser) -> None:
    answer = browser.post(browser.request("maps.figure"))
    json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
