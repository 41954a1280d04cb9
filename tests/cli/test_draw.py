"""``layerangles draw`` end to end; the gallery shows every figure, and its commands and code run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from layerangles_cli.draw import KINDS
from toys.command_line import Cli, Outcome, script

import kd_train.outcome.judging
import kd_train.outcome.opened_study
from kd_train.outcome.judging import Judged, judge_all
from kd_train.outcome.opened_study import OpenedStudy, open_study
from layerangles import AngleResult, figures
from layerangles.figures.drawing.export import find_chrome

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "results" / "movie-reviews"
PAGE = ROOT / "docs" / "gallery.md"
MOST_BYTES = 150_000


COMMANDS = script(ROOT / "docs" / "gallery.py").commands()
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
FUNCTIONS = set(figures.__all__) - {"LayerView", "Theme", "caption", "theme", "write_html", "write_image"}


@pytest.fixture(scope="module")
def read_once() -> tuple[OpenedStudy, list[Judged]]:
    """The study and its verdicts, which take seconds to read."""
    study = open_study(STUDY)
    return study, judge_all([study])


@pytest.fixture
def in_memory(read_once: tuple[OpenedStudy, list[Judged]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands receive the study and its verdicts without reading them again."""
    study, judged = read_once
    for name in ("open_study", "open_scores"):
        monkeypatch.setattr(kd_train.outcome.opened_study, name, lambda _path: study)
    monkeypatch.setattr(kd_train.outcome.judging, "judge_all", lambda _sources, **_options: judged)


@pytest.fixture(scope="module")
def angles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of two students, a and b, at the steps 0, 40 and 200."""
    course = AngleResult.load(STUDY / "angles" / "course-seed0.nc").dataset
    two = course.sel(student=["none-seed0", "forward-seed0"]).assign_coords(student=["a", "b"])
    return AngleResult(two).save(tmp_path_factory.mktemp("angles") / "angles.nc")


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


# Figures


def test_help_shows_examples(cli: Cli) -> None:
    assert "draw" in cli("--help").out
    assert "Example: layerangles draw heatmap" in cli("draw", "--help").out


def test_for_a_screen_it_prints_the_path_alone(cli: Cli, angles: Path, tmp_path: Path) -> None:
    outcome = cli("draw", "heatmap", angles, "--student", "a", "-o", "map.html")
    assert (outcome.code, outcome.out) == (0, "wrote map.html\n")
    assert "seen from a" in (tmp_path / "map.html").read_text(encoding="utf-8")


def test_for_a_paper_it_prints_the_caption(cli: Cli, angles: Path) -> None:
    arguments = ("draw", "comparison", angles, "--theme", "paper", "--columns", "2", "--step", "0", "-o", "rows.html")
    figure = figures.comparison(AngleResult.load(angles), step=0, theme=figures.theme("paper", columns=2))
    assert cli(*arguments).out == f"wrote rows.html\n\n{figures.caption(figure)}\n"
    outcome = cli(*arguments, "--overwrite", "--json")
    assert json.loads(outcome.out) == {"wrote": "rows.html", "caption": figures.caption(figure)}
    assert '"width":605' in Path("rows.html").read_text(encoding="utf-8")


@pytest.mark.skipif(find_chrome() is None, reason="needs Chrome or Chromium")
def test_the_suffix_chooses_the_format(cli: Cli, angles: Path, tmp_path: Path) -> None:
    assert cli("draw", "histogram", angles, "--student", "b", "--layer", "2", "-o", "h.png").code == 0
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_one_student_at_two_steps(cli: Cli, angles: Path) -> None:
    outcome = cli("draw", "compare-pair", angles, "--student", "b", "--step", 0, "--step", 40, "-o", "v.html", "--json")
    assert json.loads(outcome.out)["caption"].startswith("Angles between teacher layers, from b at two steps.")
    text = Path("v.html").read_text(encoding="utf-8")
    assert "b, layer 1, step 0" in text
    assert "b, layer 1, step 40" in text


@pytest.mark.usefixtures("in_memory")
def test_students_of_several_results_in_one_comparison(cli: Cli) -> None:
    names = ("none-seed0", "none-seed1", "none-seed2")
    given = [part for name in names for part in ("--student", name)]
    outcome = cli("draw", "comparison", STUDY, *given, "--null", "N1", "--theme", "paper", "-o", "c.html")
    assert "Excess over N1" in outcome.out
    text = Path("c.html").read_text(encoding="utf-8")
    assert all(name in text for name in names)


@pytest.mark.usefixtures("in_memory")
def test_a_trajectory_of_some_students(cli: Cli) -> None:
    outcome = cli("draw", "trajectory", STUDY, "--student", "none-seed0", "-o", "t.html", "--json")
    assert outcome.code == 0
    text = Path("t.html").read_text(encoding="utf-8")
    assert "none-seed0" in text
    assert "forward-seed0" not in text


# Refusals


def test_all_errors_are_reported_together_before_anything_is_read(cli: Cli) -> None:
    outcome = cli("draw", "heatmap", "missing.nc", "--theme", "print", "--layer", 1, "--cell", "x", "-o", "map.gif")
    refused(
        outcome,
        "--theme is 'print'; allowed are screen and paper.",
        "map.gif; its name must end in .html, .png, .svg, .pdf.",
        "heatmap does not take --layer, --cell; it takes --student, --step, --tower, --null.",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("heat", "a.nc"), "there is no figure 'heat'; allowed are heatmap, comparison"),
        (("heatmap", "a.nc", "--columns", 2), "--columns is 2; allowed are 1 and 2, with --theme paper."),
        (("heatmap", "a.nc", "--theme", "paper", "--columns", 3), "--columns is 3; allowed are 1 and 2"),
        (("heatmap", "a.nc", "--student", "a", "--student", "b"), "takes --student once at most; got 2."),
        (("heatmap", "a.nc"), "a.nc is not a file."),
        (("heatmap", "."), "is no study's directory"),
        (("forest", "a.nc"), "forest is of scores, and a.nc holds angles. Give a study's directory."),
        (("forest", ".", "--margin", 1, "--margin-of-gain", 1), "not both"),
    ],
)
def test_wrong_arguments_are_refused(cli: Cli, arguments: tuple[object, ...], said: str) -> None:
    refused(cli("draw", *arguments, "-o", "figure.html"), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("heatmap",), "no student was named; allowed are a, b. Name one with --student."),
        (("heatmap", "--student", "c"), "there is no student 'c'; allowed are a, b."),
        (("heatmap", "--student", "a", "--step", 5), "step 5 was not measured"),
        (("heatmap", "--student", "a", "--null", "N4"), "N4"),
        (("compare-pair", "--student", "a"), "two states are compared, and 1 students were named."),
        (("histogram-pair", "--student", "a", "--student", "b"), "give --teacher-layer twice"),
        (("histogram", "--student", "a", "--layer", 9), "student_layer is 9; allowed are 0, 1, 2, 3 "),
    ],
)
def test_choices_that_a_result_lacks_are_refused(cli: Cli, angles: Path, arguments: tuple[str, ...], said: str) -> None:
    figure, *others = arguments
    refused(cli("draw", figure, angles, *others, "-o", "figure.html"), said)


def test_a_student_in_two_results_is_refused(cli: Cli, angles: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.nc"
    twice.write_bytes(angles.read_bytes())
    refused(cli("draw", "heatmap", angles, twice, "--student", "a", "-o", "x.html"), "a is in 2 of the results.")


def test_files_are_not_overwritten_unasked(cli: Cli, angles: Path, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_text("kept")
    # Refused before anything is read, so that the missing source is not reported.
    refused(cli("draw", "heatmap", "missing.nc", "-o", "map.html"), "exists already", "--overwrite")
    assert (tmp_path / "map.html").read_text() == "kept"
    assert cli("draw", "heatmap", angles, "--student", "a", "-o", "map.html", "--overwrite").code == 0


@pytest.mark.usefixtures("in_memory")
def test_a_study_of_several_cells_needs_one(cli: Cli) -> None:
    said = ("allowed are 'movie-reviews-verdict (init copied)'", "Name one with --cell.")
    refused(cli("draw", "forest", STUDY, "-o", "x.html"), "no cell was named", *said)
    refused(cli("draw", "gains", STUDY, "--cell", "y", "-o", "x.html"), "there is no cell 'y'", *said)


# The gallery


def test_the_page_has_every_figure_as_command_and_as_code() -> None:
    assert {arguments[1] for arguments in COMMANDS} == set(KINDS)
    assert {name.replace("-", "_") for name in KINDS} == FUNCTIONS
    assert set(re.findall(r"figures\.(\w+)\(", "\n".join(CODE))) >= FUNCTIONS


def test_pictures_and_links_of_the_page_are_there_and_small() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((PAGE.parent / link).is_file() for link in links if "://" not in link)
    pictures = {PAGE.parent / link for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)}
    assert {ROOT / arguments[arguments.index("-o") + 1] for arguments in COMMANDS} == pictures
    assert pictures == set((PAGE.parent / "images" / "gallery").iterdir())
    assert max(picture.stat().st_size for picture in pictures) < MOST_BYTES


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: Path(arguments[-1]).stem)
def test_each_command_of_the_page_runs(cli: Cli, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # the page's paths start at the root of the repository
    written = Path(arguments[-1]).with_suffix(".html")  # as HTML, since images need Chrome and time
    outcome = cli(*arguments[:-1], written)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / written).is_file()
    assert bool(outcome.out.strip().partition("\n\n")[2]) == ("paper" in arguments)


@pytest.mark.usefixtures("in_memory")
def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for block in CODE:
        exec(block, names)  # noqa: S102 - it is our own page
    assert figures.caption(names["figure"]).startswith("Angles between teacher layers, seen from forward-seed0.")
