"""A result in a notebook: what its snippet says, that it needs nothing, and that it stays small."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from toys.results import make_result, with_steps

from layerangles import AngleResult, measure_angles
from layerangles.app import svgmap
from layerangles.figures.drawing import selection, style
from layerangles.results import notebook_html as glance

MOST_BYTES = 200_000
HOSTILE = "</div><script>alert(1)</script> \"quoted\" & 'so'"


class Parsed(HTMLParser):
    """The elements of a snippet, which must be closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def checked(result: AngleResult) -> str:
    """The snippet: well formed, small, and without anything that runs or is loaded."""
    text = result._repr_html_()
    assert len(text.encode()) < MOST_BYTES
    parsed = Parsed(text)
    assert not {"script", "link", "img", "iframe", "style"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on") or name in ("src", "href")]
    assert "nan" not in re.sub(r"<title>.*?</title>", "", text).lower().replace("nan-", "")
    return text


def many(n_students: int, n_steps: int, n_teacher: int, n_student: int) -> AngleResult:
    names = [f"forward-with-a-long-name-of-its-own-{i}-seed{i}" for i in range(n_students)]
    made = make_result(tuple(names), n_teacher, n_student, matched=((0, 1),))
    return with_steps(made, [10 * i for i in range(n_steps)])


def test_it_says_what_was_measured(result):
    text = checked(result)
    for name in result.students:
        assert f">{name}</th>" in text
    low, mean, high = (
        float(result.dataset[f"student_{name}"].sel(student="identity").item())
        for name in ("ci_low", "angle_deg", "ci_high")
    )
    assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in text
    excess = float(result.dataset["student_excess_deg"].sel(student="identity", null="N1").item())
    assert f"{excess:+.1f} [".replace("-", "−") in text
    assert "excess over N1 °" in text
    assert "4 students" in text
    assert "Maps of 1 more are left out." in text


def test_maps_have_the_figures_colours_and_the_numbers_in_their_tooltips():
    result = make_result(("one",), n_teacher=3, n_student=1, matched=((0, 1),))
    text = checked(result)
    angle = result.dataset["angle_deg"].values[0, 0, 0]
    low, high = (result.dataset[name].values[0, 0, 0, 0, 2] for name in ("ci_low", "ci_high"))
    assert f"<title>teacher layers 0 and 2: {angle[0, 2]:.1f} [{low:.1f}, {high:.1f}]°</title>" in text
    assert text.count("<title>") == 3
    assert "◆ was matched" in text


@pytest.mark.parametrize("degree", [0, 15, 60, 90, 120, 150, 180])
def test_colours_are_those_of_the_figures(degree):
    scale = svgmap.angle_scale(170)
    expected = {position * 180: colour for position, colour in style.colour_scale(180)}[degree]
    red, green, blue = svgmap.colour_of(degree, scale)
    assert f"#{red:02x}{green:02x}{blue:02x}" == expected  # above the break: the later of the two at 90°
    assert svgmap.colour_of(89.99, scale) != svgmap.colour_of(90, scale)


def test_a_cell_stands_where_the_figures_have_it():
    pairs = np.array([1000, svgmap.NONE, svgmap.NONE], dtype=np.int16)  # layers 0 and 1 alone
    svg = svgmap.heat_map(pairs, [0, 1, 2], [], svgmap.angle_scale(90), 90, svgmap.Text("", axes=False))
    # layer_b to the right, layer_a upwards: (0, 1) below in the middle, (1, 0) left in the middle
    assert 'd="M30 60h29v29h-29zM0 30h29v29h-29z"' in svg
    assert svg.count("<path") == 1
    assert svg.count(">10.0</text>") == 2


@pytest.mark.parametrize(("degrees", "text"), [(0.04, "0.0"), (68.25, "68.3"), (-20.0, "−20.0"), (-0.06, "−0.1")])
def test_values_are_rounded_in_whole_numbers(degrees, text):
    (value,) = svgmap.hundredths(np.array([degrees]))
    assert svgmap.written(int(value), svgmap.Scale([])) == text


def test_forty_students_at_five_steps_stay_small():
    text = checked(many(40, 5, 13, 6))
    assert text.count("</tr>") == 41
    assert "Maps of 38 more are left out." in text


@pytest.mark.parametrize(("n_teacher", "n_student"), [(2, 1), (33, 29), pytest.param(81, 81, marks=pytest.mark.long)])
def test_depths_of_any_kind_stay_small(n_teacher, n_student):
    text = checked(many(3, 1, n_teacher, n_student))
    assert "student layer 0 (emb)" in text
    assert ("Every" in text) == (n_teacher > 32)


def test_more_rows_than_are_shown_are_counted():
    assert "… and 60 more." in checked(many(100, 2, 4, 2))


def test_names_are_text():
    text = checked(make_result((HOSTILE, "x" * 500)))
    assert "&lt;script&gt;" in text
    assert "x" * 61 not in text


def test_a_student_is_shown_at_its_own_last_step(study_with_steps, study):
    result = measure_angles(study_with_steps, study.texts, steps=True, device="cpu")
    text = checked(result)
    assert re.search(r">early</th><td[^>]*>20</td>", text)
    assert re.search(r">late</th><td[^>]*>30</td>", text)


def test_a_student_without_any_angle():
    text = checked(make_result(("one", "blank"), blank=((1,),)))
    assert re.search(r">blank</th><td[^>]*>–</td><td[^>]*>–</td>", text)
    assert "no map" in text
    assert "no map" in checked(make_result(("blank",), blank=((0,),), matched=()))


def test_layers_without_a_direction_say_so():
    text = checked(make_result(degenerate=((0, 0, 0),)))
    assert " ".join(re.findall(r'font-size="12">([^<]*)</text>', text)) == selection.NO_DIRECTION.replace("'", "&#x27;")


@pytest.mark.parametrize(
    "settings",
    [
        {"space": "gradient"},
        {"convention": "paper", "max_length": 32},
        {"space": "pull"},
        {"alternatives": "all"},
        {"nulls": ()},
    ],
)
def test_every_kind_of_result(study, settings):
    result = measure_angles(study.identity, study.texts, device="cpu", **settings)
    text = checked(result)
    assert "<path" in text
    assert repr(result) == f"<AngleResult: {result.in_words}>"


def test_two_towers_have_a_row_and_maps_each():
    text = checked(make_result(("one",), towers=("encoder", "decoder")))
    assert ">one, encoder</th>" in text
    assert ">one, decoder</th>" in text
    assert text.count("<svg") == 2 * 3 + 1


def test_a_result_in_plain_text(result):
    assert repr(result) == (
        "<AngleResult: 4 students; 4 student layers × 5 teacher layers (encoder); 24 texts; space teacher; nulls N1>"
    )


def test_intervals_in_words():
    assert glance.interval(np.nan, 1, 2) == "–"
    assert glance.interval(-1.25, -2, 3.04, 2, sign=True) == "−1.25 [−2.00, +3.04]"
