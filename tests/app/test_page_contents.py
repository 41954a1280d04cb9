"""Below the maps: scores, saved files, measuring on demand, tokens."""

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dash import Dash
from toys.app_browser import PLAN, Browser, elements, expected, texts_in
from toys.app_sources import Stub
from toys.studies import ToyStudy

from layerangles import measure_angles
from layerangles.app.catalogue import Catalogue
from layerangles.app.server import create_app
from layerangles.app.sources import Student
from layerangles.app.views import resolve
from layerangles.files import sha256_of_file
from layerangles.measurement.token_angles import TokenReader
from layerangles.models import weights
from layerangles.models.checkpoints import open_student


def test_the_strategies_shown_are_marked_in_the_score_table(browser: Browser) -> None:
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
def test_the_csv_file_has_the_values_shown(browser: Browser, catalogue: Catalogue, query: str) -> None:
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


def test_unknown_formats_are_ignored(browser: Browser) -> None:
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


def test_students_without_weights_are_not_offered_for_measurement(browser: Browser) -> None:
    browser.open("?first=lone&second=stranger")
    assert not offered(browser)
    browser.known["measure", "n_clicks"] = 0
    assert not browser.fire("wanted.data", "measure.n_clicks")  # as when the page opens


def test_extreme_tokens_are_shown_in_their_texts(browser: Browser, study: ToyStudy, catalogue: Catalogue) -> None:
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


def test_tokens_belong_to_the_step_shown(study_with_steps: Sequence[Path], study: ToyStudy) -> None:
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


def test_weights_are_hashed_once_and_again_after_they_changed(
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


def test_missing_tokens_are_explained(browser: Browser) -> None:
    browser.open("?first=stranger&second=learned&way=gradient")
    assert browser.fire("tokens.children", "query.data")
    said = browser.said("tokens")
    assert "there is no student 'stranger' here" in said
    assert "not measured in gradient space" in said
