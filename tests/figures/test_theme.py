"""Figures for a paper are as wide as its columns, legible in print, distinguishable in grey, and not cut off."""

import inspect
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.colors import sample_colorscale
from toys.predictions import demo
from toys.results import NAME, make_result, with_steps
from toys.verdicts import make_verdict

from layerangles import AngleResult, InputError, figures
from layerangles.figures import LayerView, Theme, write_image
from layerangles.figures.drawing import style
from layerangles.figures.drawing.export import _of_exact_size, find_chrome
from layerangles.figures.drawing.theme import SCREEN

COURSE = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews" / "angles" / "course-seed0.nc"
PAPER = {columns: figures.theme("paper", columns=columns) for columns in (1, 2)}
WIDTH_PT = {1: 219.08614 * 72 / 72.27, 2: 455.24408 * 72 / 72.27}
PT = 0.75  # of a pixel
THREE = ("a-seed0", "another_student-with-a-long-name-seed0", "c-seed0")
LONG = ["in_order_random-scratch", "forward-other_text-scratch", "all_to_one", "random-draw5"]


@pytest.fixture(scope="module")
def course() -> AngleResult:
    """18 students of a teacher with 7 states, at three steps."""
    return AngleResult.load(COURSE)


def _two(result: AngleResult, student_layer: int) -> list[LayerView]:
    return [LayerView.of(result, name, student_layer=student_layer) for name in result.students[:2]]


def _part(result: AngleResult, n: int) -> AngleResult:
    return AngleResult(result.dataset.isel(student=slice(n)))


def of_layers(n: int, students: tuple[str, ...] = ("forward",)) -> AngleResult:
    return make_result(students, n_teacher=n, n_student=(n + 1) // 2, largest=140)


Draw = Callable[[AngleResult, Theme], go.Figure]
DRAW: dict[str, Draw] = {
    "heatmap": lambda r, t: figures.heatmap(r, "forward-seed0", theme=t),
    "heatmap-excess": lambda r, t: figures.heatmap(r, "none-scratch-seed0", null="N1", theme=t),
    "heatmap-1-panel": lambda r, t: figures.heatmap(make_result(n_teacher=7, n_student=1, matched=()), theme=t),
    "heatmap-13": lambda r, t: figures.heatmap(of_layers(13), theme=t),
    "heatmap-25": lambda r, t: figures.heatmap(of_layers(25), theme=t),
    "heatmap-blank": lambda r, t: figures.heatmap(make_result(n_teacher=7, blank=[np.s_[:, :, 1]]), theme=t),
    "comparison-2": lambda r, t: figures.comparison(r, ["forward-seed0", "none-seed0"], theme=t),
    "comparison-18": lambda r, t: figures.comparison(r, theme=t),
    "comparison-18-excess": lambda r, t: figures.comparison(r, null="N1", theme=t),
    "comparison-25": lambda r, t: figures.comparison(of_layers(25, THREE), theme=t),
    "histogram": lambda r, t: figures.histogram(r, "forward-seed0", layer_a=3, theme=t),
    "histogram-one": lambda r, t: figures.histogram(r, "forward-seed0", layer_b=5, theme=t),
    "histogram-25": lambda r, t: figures.histogram(of_layers(25), layer_a=12, theme=t),
    "histogram-none": lambda r, t: figures.histogram(make_result(blank=[np.s_[:, :, 1]]), theme=t),
    "trajectory": lambda r, t: figures.trajectory(r, theme=t),
    "trajectory-2": lambda r, t: figures.trajectory(_part(r, 2), theme=t),
    "distances": lambda r, t: figures.distances(r, "forward-seed0", theme=t),
    "forest": lambda r, t: figures.forest(make_verdict(LONG, has_examples=True), theme=t),
    "forest-1-seed": lambda r, t: figures.forest(make_verdict(n_seeds=1, unit=0.01, margin=None), theme=t),
    "gains": lambda r, t: figures.gains(make_verdict(LONG), theme=t),
    "prediction": lambda r, t: figures.prediction(demo(5), theme=t),
    "prediction-2": lambda r, t: figures.prediction(demo(2), theme=t),
    "compare_pair": lambda r, t: figures.compare_pair(*_two(r, 1), theme=t),
    "compare_pair-25": lambda r, t: figures.compare_pair(*_two(of_layers(25, THREE), 1), theme=t),
    "compare_pair-absent": lambda r, t: figures.compare_pair(
        _two(r, 1)[0], LayerView("late", None, "no checkpoint here"), theme=t
    ),
    "histogram_pair": lambda r, t: figures.histogram_pair(*_two(r, 1), 1, 3, theme=t),
    "histogram_pair-none": lambda r, t: figures.histogram_pair(*_two(r, 1), 1, 1, theme=t),
}
SLOW = ("comparison-25", "comparison-18-excess")  # to draw; in one column alone, which is the harder of both
EVERY = [
    pytest.param(name, columns, id=f"{name}-{columns}")
    for name in DRAW
    for columns in (1, 2)
    if (name, columns) not in [(slow, 2) for slow in SLOW]
]


@pytest.fixture(scope="module")
def drawn(course: AngleResult) -> Callable[[str, int], go.Figure]:
    """Draws each figure once; tests must not change it."""
    made: dict[tuple[str, int], go.Figure] = {}

    def draw(name: str, columns: int) -> go.Figure:
        if (name, columns) not in made:
            made[name, columns] = DRAW[name](course, PAPER[columns])
        return made[name, columns]

    return draw


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All leaves of a figure's JSON; a list of numbers is one."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from walk(part, (*path, key))
    elif isinstance(value, list | tuple) and any(isinstance(part, dict) for part in value):
        for part in value:
            yield from walk(part, path)
    else:
        yield path, value


def numbers(value: Any) -> list[float]:
    return [float(part) for part in np.ravel(value) if part is not None]


# The theme


def test_a_theme_is_for_a_screen_or_for_columns_of_a_paper() -> None:
    assert figures.theme() is figures.theme("screen") is SCREEN
    assert not SCREEN.on_paper
    for columns, width in WIDTH_PT.items():
        assert figures.theme("paper", columns=columns).fixed_width * PT == pytest.approx(width, abs=0.25)
    with pytest.raises(ValueError, match="'screen' has no width"):
        _ = SCREEN.fixed_width


def test_other_themes_are_refused() -> None:
    # Unwrapped, since the tests' own checks of types would come first.
    with pytest.raises(InputError, match="the theme is 'print'; allowed are 'screen' and 'paper'"):
        inspect.unwrap(figures.theme)("print")
    with pytest.raises(InputError, match="columns is 3; allowed are 1 and 2"):
        inspect.unwrap(figures.theme)("paper", columns=3)


def test_lines_are_thinner_on_paper_but_not_below_half_a_point() -> None:
    assert [SCREEN.stroke(width) for width in (0.5, 1, 5)] == [0.5, 1, 5]
    assert [PAPER[1].stroke(width) for width in (0.5, 1, 5)] == [0.75, 0.75, 3]


def test_the_screen_is_the_default(course: AngleResult) -> None:
    assert figures.heatmap(course, "forward-seed0") == figures.heatmap(course, "forward-seed0", theme=SCREEN)
    assert figures.heatmap(course, "forward-seed0").layout.title.text.startswith("Angles between teacher layers")


# Size and texts


@pytest.mark.parametrize(("name", "columns"), EVERY)
def test_a_figure_is_as_wide_as_the_columns_and_fits_on_a_page(drawn: Any, name: str, columns: int) -> None:
    layout = drawn(name, columns).layout
    assert layout.width * PT == pytest.approx(WIDTH_PT[columns], abs=0.25)
    assert layout.height * PT < 690
    assert [layout.margin[side] for side in "lrtb"] == [0, 0, 0, 0]


@pytest.mark.parametrize(("name", "columns"), EVERY)
def test_texts_and_lines_are_large_enough_in_print(drawn: Any, name: str, columns: int) -> None:
    sizes, widths = [], []
    for path, value in walk(drawn(name, columns).to_plotly_json()):
        if path[-1] == "size" and path[-2].endswith("font") and "hoverlabel" not in path:
            sizes += numbers(value)
        is_width = path[-1] in ("linewidth", "zerolinewidth") or path[-2:] == ("line", "width")
        if is_width and "marker" not in path:
            widths += numbers(value)
    assert len(sizes) > 2
    assert min(sizes) * PT >= 6.5
    assert max(sizes) * PT <= 9
    assert all(width == 0 or width * PT >= 0.5 for width in widths)  # the outline of a band has no width


@pytest.mark.parametrize("name", [name for name in DRAW if not name.startswith(("comparison-18", "heatmap-25"))])
def test_the_title_is_in_the_caption_alone(drawn: Any, course: AngleResult, name: str) -> None:
    figure = drawn(name, 1)
    assert figure.layout.title.text is None
    on_screen = DRAW[name](course, SCREEN)
    title = re.sub("<br>", " ", on_screen.layout.title.text)
    sentence = title if title.endswith("?") else f"{title}."
    assert figures.caption(figure).startswith(f"{sentence} ")
    assert figures.caption(on_screen).startswith(f"{sentence} ")
    assert "<br>" not in figures.caption(figure)
    assert not [note for note in figure.layout.annotations if title[:20] in note.text]


@pytest.mark.parametrize(("name", "columns"), EVERY)
def test_panels_lie_apart_and_hold_their_traces(drawn: Any, name: str, columns: int) -> None:
    figure = drawn(name, columns)
    boxes = {}
    for trace in figure.data:
        x, y = (figure.layout[f"{way}axis{(trace[f'{way}axis'] or way)[1:]}"] for way in "xy")
        box = (*x.domain, *y.domain)
        assert 0 <= box[0] < box[1] <= 1
        assert 0 <= box[2] < box[3] <= 1
        boxes[trace.xaxis] = box
        if trace.type == "scatter" and x.range is not None:
            at = [value for value in numbers(trace.x) if np.isfinite(value)]
            assert all(min(x.range) - 1e-9 <= value <= max(x.range) + 1e-9 for value in at)
    for one, other in itertools.combinations(boxes.values(), 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one, other)


def test_every_figure_function_takes_a_theme() -> None:
    functions = set(figures.__all__) - {"LayerView", "Theme", "caption", "theme", "write_html", "write_image"}
    assert {name.split("-")[0] for name in DRAW} == functions


def test_only_our_figures_have_a_caption() -> None:
    with pytest.raises(InputError, match="has no caption"):
        figures.caption(go.Figure())
    figure = figures.heatmap(make_result((NAME,)), theme=PAPER[1])
    assert figures.caption(figure).startswith(f"Angles between teacher layers, seen from {NAME}. Mean over tokens")


def test_names_lose_their_shared_ending() -> None:
    assert style.short_names(["a-x-seed0", "b-c-x-seed0"]) == (["a", "b-c"], "x-seed0")
    assert style.short_names(["x-seed0", "b-x-seed0"]) == (["x", "b-x"], "seed0")  # no name is lost whole


def test_numbers_stand_in_cells_where_they_fit() -> None:
    paper = PAPER[1]
    assert style.values_that_fit([52.34, 7.0], 22, paper) == ["52.3", "7.0"]
    assert style.values_that_fit([52.34, 7.0], 16, paper) == ["52", "7"]
    assert style.values_that_fit([-0.2, -3.6], 16, paper) == ["0", "−4"]
    assert style.values_that_fit([152.34, 7.0], 10, paper) is None


# Grey


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2), of "rgb(r, g, b)"."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def grey_of(axis: Any, values: list[float]) -> list[float]:
    if axis.cmin == 0:
        return [luminance(style.colour_at(value)) for value in values]
    shares = [(value - axis.cmin) / (axis.cmax - axis.cmin) for value in values]
    return [luminance(colour) for colour in sample_colorscale([list(stop) for stop in axis.colorscale], shares)]


MAPS = [p for p in EVERY if str(p.values[0]).startswith(("heatmap", "comparison", "compare_pair"))]


@pytest.mark.parametrize(("name", "columns"), MAPS)
def test_in_grey_the_lightness_of_a_cell_without_number_or_mark_is_unambiguous(
    drawn: Any, name: str, columns: int
) -> None:
    figure = drawn(name, columns)
    for trace in figure.data:
        if trace.type != "heatmap":
            continue
        axis = figure.layout[trace.coloraxis]
        on_it = [other for other in figure.data if other.type == "scatter" and other.xaxis == trace.xaxis]
        said = {place for other in on_it for place in zip(other.x, other.y, strict=True)}
        z = np.asarray(trace.z, dtype=float)
        plain = [z[r, c] for r, c in np.argwhere(np.isfinite(z)) if (trace.x[c], trace.y[r]) not in said]
        if name == "comparison-25":  # cells of one pixel, for which the caption names the colour
            assert "Orange cells are above 90°" in figures.caption(figure)
            plain = [value for value in plain if value <= 90]
        rising = grey_of(axis, sorted(value for value in plain))
        assert all(one <= other + 1e-3 for one, other in itertools.pairwise(rising)) or all(
            one + 1e-3 >= other for one, other in itertools.pairwise(rising)
        )


def test_marks_are_explained_where_there_are_any(drawn: Any) -> None:
    marked, plain = drawn("comparison-18", 1), drawn("heatmap", 1)
    assert "A dot marks cells above 90°" in figures.caption(marked)
    assert "• above 90°" in [note.text for note in marked.layout.annotations]
    assert "dot" not in figures.caption(plain)  # numbers stand in its cells
    assert "• above 90°" not in [note.text for note in plain.layout.annotations]
    assert "A dash marks cells below 0" in figures.caption(drawn("comparison-18-excess", 1))


def test_lines_are_distinguishable_without_colour(drawn: Any) -> None:
    lines = [trace for trace in drawn("trajectory", 1).data if trace.mode == "lines+markers" and trace.xaxis == "x"]
    assert len({(trace.line.dash, trace.marker.symbol) for trace in lines}) == len(lines) == 18
    peaks = [trace for trace in drawn("histogram-25", 1).data if trace.mode == "markers" and trace.xaxis != "x99"]
    assert len({trace.marker.symbol for trace in peaks}) == len(peaks) == 24
    kinds = [trace for trace in drawn("forest", 1).data if trace.mode == "markers" and trace.xaxis == "x99"]
    assert len({(trace.marker.symbol, trace.marker.color == "white") for trace in kinds}) == 3


def test_the_key_names_every_line_once_and_in_its_look(drawn: Any, course: AngleResult) -> None:
    figure = drawn("trajectory", 1)
    key = {trace.name: trace for trace in figure.data if trace.xaxis == "x99"}
    assert list(key) == [name.removesuffix("-seed0") for name in course.students]
    assert "All students are of seed0." in figures.caption(figure)
    lines = [trace for trace in figure.data if trace.mode == "lines+markers" and trace.xaxis == "x"]
    for line, of_key in zip(lines, key.values(), strict=True):
        assert (line.line.color, line.line.dash) == (of_key.line.color, of_key.line.dash)
        assert line.marker.symbol == of_key.marker.symbol


# Real PDFs

needs_pdf = pytest.mark.skipif(
    find_chrome() is None or shutil.which("pdffonts") is None,
    reason="needs Chrome or Chromium, and poppler-utils",
)
REAL = [("heatmap", 2), ("comparison-18", 1), ("prediction", 1)]


def said_by(program: str, *arguments: object) -> str:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def words_of(pdf: Path) -> list[tuple[str, float, float, float, float]]:
    """Each word with its box in points: left, top, right, below."""
    found = re.findall(
        r'<word xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">([^<]*)',
        said_by("pdftotext", "-bbox", pdf, "-"),
    )
    return [(text, *map(float, box)) for *box, text in found]  # type: ignore[misc]


@needs_pdf
@pytest.mark.parametrize(("name", "columns"), REAL)
def test_a_pdf_has_the_width_its_fonts_and_all_its_words(drawn: Any, tmp_path: Path, name: str, columns: int) -> None:
    figure = drawn(name, columns)
    pdf = write_image(figure, tmp_path / "figure.pdf")
    info = said_by("pdfinfo", pdf)
    width, height = map(float, re.search(r"Page size: +([\d.]+) x ([\d.]+) pts", info).groups())  # type: ignore[union-attr]
    assert width == pytest.approx(WIDTH_PT[columns], abs=0.5)
    assert height == pytest.approx(figure.layout.height * PT, abs=0.5)
    assert "Pages:           1\n" in info
    fonts = said_by("pdffonts", pdf).splitlines()[2:]
    assert fonts
    assert all(line.split()[-5] == "yes" for line in fonts)
    words = words_of(pdf)
    assert len(words) > 10
    for text, left, top, right, below in words:
        assert left > -0.5, text
        assert top > -0.5, text
        assert right < width + 0.5, text
        assert below < height + 0.5, text
    for one, other in itertools.combinations(words, 2):
        across = min(one[3], other[3]) - max(one[1], other[1])
        down = min(one[4], other[4]) - max(one[2], other[2])
        assert across < 1 or down < 2.5, (one, other)  # boxes of words are as high as a line


@needs_pdf
def test_a_pdf_is_neither_shrunk_nor_cut(tmp_path: Path) -> None:
    """Kaleido's own margins would move all of it inwards, and the lower edge off the page."""
    figure = go.Figure(layout={"width": 400, "height": 300, "margin": dict.fromkeys("lrtb", 0), "template": "none"})
    corner = {"xref": "paper", "yref": "paper", "showarrow": False, "borderpad": 0, "font": {"size": 20}}
    figure.add_annotation(text="low", x=1, y=0, xanchor="right", yanchor="bottom", **corner)
    figure.add_annotation(text="high", x=0, y=1, xanchor="left", yanchor="top", **corner)
    words = {text: box for text, *box in words_of(write_image(figure, tmp_path / "corners.pdf"))}
    assert words["low"][2] == pytest.approx(300, abs=2)
    assert words["low"][3] == pytest.approx(225, abs=5)
    assert words["high"][0] == pytest.approx(0, abs=2)
    assert words["high"][1] == pytest.approx(0, abs=5)


def test_a_page_is_set_to_the_exact_size_where_that_keeps_its_length() -> None:
    pdf = b"x /MediaBox [0 0 454.07999 150] y"
    assert _of_exact_size(pdf, 453.75, 150) == b"x /MediaBox [0 0 453.75 150]    y"
    assert _of_exact_size(b"/MediaBox [0 0 217.92 150]", 218.25, 150.75) == b"/MediaBox [0 0 218.25 150]"
    assert _of_exact_size(b"/MediaBox [0 0 9 9]", 218.25, 150.75) == b"/MediaBox [0 0 9 9]"


def test_steps_are_in_the_caption() -> None:
    figure = figures.heatmap(with_steps(make_result(), [0, 10]), theme=PAPER[1])
    assert "in degrees, step 10." in figures.caption(figure)
