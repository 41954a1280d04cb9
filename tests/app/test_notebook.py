"""``layerangles.compare`` in a notebook: its arguments, its HTML, and the app that it starts."""

import base64
import hashlib
import json
import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs, get_plotlyjs_version
from toys.results import make_result, with_steps
from toys.studies import ToyStudy

import kd_train
import layerangles
from layerangles import AngleResult, InputError
from layerangles.app.notebook import NotebookComparison

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews"
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def course() -> AngleResult:
    return AngleResult.load(RESULTS / "angles" / "course-seed0.nc")


def payload(shown: NotebookComparison) -> dict[str, Any]:
    """What the page's script gets."""
    data: dict[str, Any] = json.loads(re.search(r'<script type="application/json">(.*?)</script>', shown.html, re.S)[1])  # type: ignore[index]
    return data


def chosen(shown: NotebookComparison) -> list[str]:
    data = payload(shown)
    return [data["checkpoints"][index]["label"] for index in data["chosen"]]


def large(n_students: int, n_steps: int, n_teacher: int, n_student: int) -> AngleResult:
    names = tuple(f"student-{i}" for i in range(n_students))
    return with_steps(make_result(names, n_teacher, n_student, matched=()), [10 * i for i in range(n_steps)])


def test_a_notebook_shows_the_html_of_a_comparison(result):
    shown = layerangles.compare(result, first="identity", second="deeper")
    assert shown._repr_html_() == shown.html
    assert chosen(shown) == ["identity", "deeper"]
    assert len(repr(shown)) < 500  # without the markup


def test_a_page_asks_for_plotly_of_this_version_by_its_hash(result):
    data = payload(layerangles.compare(result))
    assert data["plotly"] == f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js"
    assert (
        base64.b64decode(data["integrity"].removeprefix("sha256-")) == hashlib.sha256(get_plotlyjs().encode()).digest()
    )


def test_by_default_two_students_or_both_ends_of_one_are_compared(course):
    one = AngleResult(course.dataset.sel(student=["last-seed0"]))
    assert chosen(layerangles.compare(one)) == ["last-seed0, step 0", "last-seed0, step 200"]
    assert chosen(layerangles.compare(course, first="none-seed0@0", second="none-seed0")) == [
        "none-seed0, step 0",
        "none-seed0, step 200",
    ]
    assert chosen(layerangles.compare(course))[0] == "all_to_one-scratch-seed0, step 200"


def test_students_of_one_name_are_numbered(course):
    one = AngleResult(course.dataset.sel(student=["none-seed0"]))
    again = AngleResult(one.dataset)
    assert chosen(layerangles.compare(one, one, again, first="none-seed0", second="none-seed0 (2)")) == [
        "none-seed0, step 200",
        "none-seed0 (2), step 200",
    ]


def test_eighteen_students_at_three_steps_fit_with_all_nulls(course):
    shown = layerangles.compare(course)
    assert len(shown.html.encode()) < MOST_BYTES
    assert len(payload(shown)["checkpoints"]) == 54
    assert list(payload(shown)["quantities"]) == ["", *course.nulls]
    assert "left out" not in shown.html


@pytest.mark.parametrize("shape", [(40, 5, 13, 7), (10, 4, 25, 13), (200, 2, 5, 3)])
def test_checkpoints_beyond_the_room_are_left_out_and_counted(shape):
    shown = layerangles.compare(large(*shape), first="student-1", second="student-0@10")
    assert len(shown.html.encode()) < MOST_BYTES
    kept = [one["label"] for one in payload(shown)["checkpoints"]]
    assert f"{shape[0] * shape[1] - len(kept)} more checkpoints are left out" in shown.html
    assert chosen(shown) == [f"student-1, step {10 * (shape[1] - 1)}", "student-0, step 10"]
    assert kept == sorted(kept, key=lambda label: [int(n) for n in re.findall(r"\d+", label)])  # in their order


def test_last_steps_have_precedence_over_first_steps_and_those_over_others():
    kept = payload(layerangles.compare(large(40, 5, 7, 4), first="student-3@20"))["checkpoints"]
    steps: dict[str, list[int]] = {}
    for one in kept:
        name, step = one["label"].split(", step ")
        steps.setdefault(name, []).append(int(step))
    assert 20 in steps["student-3"]
    assert all(40 in of for of in steps.values())
    assert sum(0 in of for of in steps.values()) >= sum(30 in of for of in steps.values())
    assert len(steps) == 40


def test_the_two_chosen_are_shown_however_deep_their_teacher():
    shown = layerangles.compare(large(2, 1, 41, 21), first="student-1", second="student-0")
    assert len(payload(shown)["checkpoints"]) == 2
    assert list(payload(shown)["quantities"]) == [""]


def test_names_cannot_end_the_data():
    shown = layerangles.compare(make_result(("</script><b>", "other")))
    assert chosen(shown)[0] == "</script><b>"
    assert "</script><b>" not in shown.html


def test_files_and_results_are_shown_together(result, tmp_path):
    path = result.save(tmp_path / "angles.nc")
    shown = layerangles.compare(str(path), AngleResult.load(path), result)
    assert len(shown.sources) == 3
    assert "identity" in shown.html


def test_a_study_is_compared_without_its_weights():
    shown = layerangles.compare(kd_train.open_study(RESULTS), first="forward-seed0@0", second="forward-seed0")
    assert "forward-seed0, step 0" in shown.html
    assert "forward-seed0, step 200" in shown.html
    assert len(shown.html.encode()) < MOST_BYTES


def test_students_without_a_measurement_are_named(study: ToyStudy):
    shown = layerangles.compare(study.identity)
    assert "Nothing was measured of identity yet" in shown.html
    with pytest.raises(InputError, match="nothing was measured of these students yet"):
        layerangles.compare(study.identity, first="identity")


def test_a_measured_student_is_shown(study: ToyStudy, result, tmp_path):
    shutil.copytree(study.root, tmp_path / "study")
    student = tmp_path / "study" / "students" / "identity"
    result.save(student / "angles.nc")
    assert "identity" in [one["label"] for one in payload(layerangles.compare(student))["checkpoints"]]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ((), "nothing was given to compare"),
        (("nowhere",), "nowhere is neither a result file nor a student's directory"),
        ((RESULTS,), "Open a study with kd_train.open_study"),
    ],
)
def test_other_things_are_refused(what, message):
    with pytest.raises(Exception, match=message):
        layerangles.compare(*what)


def test_an_unknown_checkpoint_is_refused(result):
    with pytest.raises(InputError, match="no-such"):
        layerangles.compare(result, first="no-such")


def test_the_app_is_started_and_embedded(result):
    frame = layerangles.compare(result).app(height=700)
    assert frame.src.startswith("http://127.0.0.1:")
    assert frame.height == 700
    with urllib.request.urlopen(f"{frame.src}_dash-layout", timeout=30) as response:  # noqa: S310
        assert b'"first-strategy"' in response.read()
