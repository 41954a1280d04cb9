"""``layerangles.compare`` in a notebook: what it takes, what it shows, and the app that it starts."""

import shutil
import urllib.request
from pathlib import Path

import pytest
from toys.studies import ToyStudy

import kd_train
import layerangles
from layerangles import AngleResult, InputError

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews"
MOST_BYTES = 200_000


def test_a_result_is_shown_as_a_widget(result):
    shown = layerangles.compare(result, first="identity", second="deeper")
    assert shown._repr_html_() == shown.html
    assert 'class="layerangles-compare"' in shown.html
    assert shown.html.index("<b>identity</b>") < shown.html.index("<b>deeper</b>")
    assert len(repr(shown)) < 500  # without the markup


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


def test_a_student_of_whom_nothing_was_measured_is_said(study: ToyStudy):
    shown = layerangles.compare(study.identity)
    assert "Nothing was measured of identity yet" in shown.html
    with pytest.raises(InputError, match="nothing was measured of these students yet"):
        layerangles.compare(study.identity, first="identity")


def test_a_measured_student_is_shown(study: ToyStudy, result, tmp_path):
    shutil.copytree(study.root, tmp_path / "study")
    student = tmp_path / "study" / "students" / "identity"
    result.save(student / "angles.nc")
    assert 'class="layerangles-compare"' in layerangles.compare(student).html


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ((), "nothing was given to compare"),
        (("nowhere",), "nowhere is neither a result file nor a student's directory"),
        ((RESULTS,), "Open a study with kd_train.open_study"),
    ],
)
def test_what_cannot_be_compared_is_refused(what, message):
    with pytest.raises(Exception, match=message):
        layerangles.compare(*what)


def test_a_checkpoint_that_is_not_there_is_refused(result):
    with pytest.raises(InputError, match="no-such"):
        layerangles.compare(result, first="no-such")


def test_the_app_is_started_and_embedded(result):
    frame = layerangles.compare(result).app(height=700)
    assert frame.src.startswith("http://127.0.0.1:")
    assert frame.height == 700
    with urllib.request.urlopen(f"{frame.src}_dash-layout", timeout=30) as response:  # noqa: S310
        assert b'"first-strategy"' in response.read()
